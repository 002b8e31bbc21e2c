import json
import subprocess
import sys

import pytest

from jobs import cli


def anymix(*arguments):
    """Exit code, stdout and stderr of a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["run", "nope.yaml"], "nope.yaml cannot be read"),
        (["status", "nope"], "is not a corpus"),
        (["audit", "nope"], "is not a corpus"),
        (["explain", "nope", "r"], "is not a corpus"),
        (["select", "nope", "--what-if", "clip_score.min=1"], "is not a corpus"),
        (["forget", "nope", "--record", "r"], "is not a corpus"),
        (["gc", "nope"], "is not a corpus"),
        (["card", "nope"], "is not a corpus"),
        (["report", "nope"], "is not a corpus"),
        (["sample", "nope", "a prompt", "--out", "x"], "holds no trained model"),
        (["eval", "nope"], "nope holds no trained model"),
        (["eval", "--json", "./export"], "export holds no trained model"),
        (["eval"], "Missing argument 'RUN'"),
        (
            ["eval", "export", "nope", "--for", "wise", "--prompts", "x", "--out", "y"],
            "nope holds no trained model",
        ),
        (
            ["eval", "export", "nope", "--for", "geneval", "--prompts", "x", "--out", "y"],
            "--for geneval is no judge",
        ),
    ],
)
def test_a_wrong_command_says_what_is_wrong_and_ends_with_2(arguments, part, capsys):
    assert cli.call(arguments) == 2
    said = capsys.readouterr()
    assert part in said.err.replace("\n", " ")
    assert not said.out


def test_an_error_is_the_last_that_is_said(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: a\nsources:\n  - {{kind: folder, path: {tmp_path / 'gone'}}}\n")
    code, out, err = anymix("run", recipe)
    assert (code, out) == (2, "")
    assert err.startswith(f"error {recipe}:3: sources.0.path: there is no folder")
    assert len(err.splitlines()) == 1


def test_an_unknown_command_ends_with_2():
    assert cli.call(["bogus"]) == 2


def test_help_loads_neither_torch_nor_ray():
    code = (
        "import sys\nfrom jobs.cli import call\ncall(['--help'])\n"
        "sys.exit(bool({'torch', 'ray', 'vllm', 'transformers', 'duckdb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0


def test_help_names_every_command():
    _, out, _ = anymix("--help")
    for command in (
        "run",
        "status",
        "audit",
        "explain",
        "select",
        "forget",
        "gc",
        "train",
        "eval",
        "sample",
        "card",
        "report",
        "doctor",
    ):
        assert f" {command} " in out


@pytest.mark.slow
def test_from_a_recipe_to_samples_by_the_commands_of_the_readme(tiny_recipe, tmp_path):
    corpus, run = tmp_path / "corpus", tmp_path / "run"
    code, _, said = anymix("run", tiny_recipe, "--corpus", corpus)
    assert code == 0
    assert "warning: clip_score is too weak to filter by" in said  # after four steps

    code, out, _ = anymix("status", corpus, "--json")
    assert (code, json.loads(out)["num_records"]) == (0, 160)

    code, out, _ = anymix("audit", corpus, "--json")
    assert (code, json.loads(out)["sound"]) == (0, True)
    code, out, _ = anymix("status", corpus)
    assert (code, "8 checks without a fault" in out) == (0, True)

    code, out, _ = anymix("explain", corpus, "shapes/0:32:000000007", "--json")
    story = json.loads(out)
    assert (code, story["part"]["source"]) == (0, "shapes")
    assert "image" not in story["record"]

    code, out, err = anymix("forget", corpus, "--record", story["record_id"])
    assert (code, "1 records were there" in out) == (0, True)
    code, out, _ = anymix("explain", corpus, story["record_id"])
    assert (code, "left out by ingest: ingest-forgotten" in out) == (0, True)

    code, out, _ = anymix("gc", corpus)
    assert (code, "There is nothing to remove." in out) == (0, True)

    code, out, err = anymix("train", tiny_recipe, "--corpus", corpus, "--out", run)
    assert (code, out) == (0, "")
    assert "Held-out loss in nats per token" in err

    again = anymix("train", tiny_recipe, "--corpus", corpus, "--out", run)
    assert "nothing has changed" in again[2]

    code, out, _ = anymix("sample", run, "--out", tmp_path / "samples")
    assert (code, (tmp_path / "samples" / "sheet.png").exists()) == (0, True)

    sheet = tmp_path / "samples" / "sheet.png"
    code, out, _ = anymix("sample", run, "a red circle", sheet, "--out", tmp_path / "mine")
    assert code == 0
    assert (tmp_path / "mine" / "000-a-red-circle.png").exists()
    assert str(sheet) in json.loads((tmp_path / "mine" / "captions.json").read_text())

    assert anymix("card", corpus)[0] == 0
    assert (corpus / "README.md").exists()
    assert anymix("report", corpus, run)[0] == 0
    assert (corpus / "report.html").exists()

    next((corpus / "shards").glob("*/text-000000.tar")).unlink()
    code, out, _ = anymix("audit", corpus)
    assert code == 1
    assert "NOT sound" in out


def test_a_picture_that_cannot_be_read_is_named(tiny_recipe, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(tiny_recipe.read_text())
    assert cli.call(["sample", str(tmp_path), "nope.png", "--out", str(tmp_path)]) == 2
    assert "nope.png cannot be read" in capsys.readouterr().err


def test_a_run_on_a_store_is_refused(tiny_recipe, tmp_path, capsys):
    command = ["train", str(tiny_recipe), "--corpus", str(tmp_path), "--out", "s3://bucket/run"]
    assert cli.call(command) == 2
    assert "A run's folder is local" in capsys.readouterr().err
