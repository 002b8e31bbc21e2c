"""Whole corpora of shapes, in this process and through Ray."""

import json
import shutil
import signal
import subprocess
import sys

import pytest

from jobs import filling
from jobs.cli import call
from jobs.run import open_corpus
from pipeline.engine.lock import holding
from pipeline.engine.tables import read_table, write_table
from pipeline.engine.token_schemas import TOKENS
from pipeline.errors import UserError
from pipeline.ledger.explain import explain
from pipeline.ledger.live import missing
from pipeline.ledger.status import status
from tests.jobs.corpora import faults, files_of, run
from tokenizer_cache import publishing


def test_a_fresh_corpus_is_sound_and_its_status_adds_up(made):
    assert not faults(made)
    state = status(open_corpus(made)[1])
    rejected = sum(row["records"] for row in state["rejects"])
    shipped = sum(row["records"] for row in state["samples"])
    assert rejected + shipped == state["num_records"] == 160
    assert {row["stream"] for row in state["samples"]} == {"text", "image", "mixed"}
    assert {row["split"] for row in state["samples"]} == {"train", "validation"}


def test_a_second_run_does_nothing(corpus, load):
    before = files_of(corpus)
    said = run(load(), corpus)
    assert said.count("nothing has changed") == 16
    assert files_of(corpus) == before


def test_the_same_recipe_gives_the_same_bytes(made, load, tmp_path):
    run(load("ingest.rows_per_part=40"), tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(made)


@pytest.mark.e2e
def test_ray_gives_the_same_bytes_as_one_process(made, load, tmp_path):
    run(load("run.num_workers=2"), tmp_path / "ray")
    assert files_of(tmp_path / "ray") == files_of(made)


def test_a_threshold_scores_nothing_again(corpus, load):
    said = run(load("select.rules.clip_score.quantile=0.4"), corpus)
    redone = {line.split()[0] for line in said.splitlines() if "nothing has" not in line}
    assert redone == {"fit", "select", "shards"}
    assert not faults(corpus)


def test_going_back_to_an_earlier_recipe_gives_its_shards_again(corpus, load):
    before = files_of(corpus / "shards")
    run(load("select.rules.clip_score.quantile=0.4"), corpus)
    assert files_of(corpus / "shards") != before
    run(load(), corpus)
    assert files_of(corpus / "shards") == before
    assert not faults(corpus)


def test_a_publication_that_was_killed_ends_with_the_next_run(corpus, load, tmp_path, monkeypatch):
    recipe = load("select.rules.clip_score.quantile=0.4")
    shutil.copytree(corpus, tmp_path / "whole")
    run(recipe, tmp_path / "whole")

    def move_some(pairs):
        move(pairs[:3])
        raise KeyboardInterrupt

    move = publishing.move
    monkeypatch.setattr(publishing, "move", move_some)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, corpus)
    monkeypatch.undo()
    assert "shards         nothing has changed" in run(recipe, corpus)
    assert files_of(corpus / "shards") == files_of(tmp_path / "whole/shards")
    assert not faults(corpus)


def test_shards_that_are_not_published_are_not_taken_for_those_of_the_recipe(
    corpus, load, monkeypatch
):
    def killed(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(filling, "publish", killed)
    recipe = load("select.rules.clip_score.quantile=0.4")
    with pytest.raises(KeyboardInterrupt):
        run(recipe, corpus)
    opened = open_corpus(corpus)[1]
    assert missing(opened) == ["the manifest of the shards that the samples name"]
    assert faults(corpus)
    rows = opened.query("SELECT unnest(record_ids) AS record FROM samples").fetchall()
    assert explain(opened, rows[0][0])["outcome"].endswith("its shard has not been written yet.")
    monkeypatch.undo()
    run(recipe, corpus)
    assert not faults(corpus)
    assert "It is in the shards" in explain(open_corpus(corpus)[1], rows[0][0])["outcome"]


def test_another_threshold_starts_no_ray_and_loads_no_model(corpus, tiny_recipe):
    changes = ["run.num_workers=2", "select.rules.clip_score.quantile=0.4"]
    command = ["run", str(tiny_recipe), "--corpus", str(corpus), "--until", "select"]
    command += [word for change in changes for word in ("--set", change)]
    code = (
        f"import sys\nfrom jobs.cli import call\nassert call({command!r}) == 0\n"
        "sys.exit(bool({'torch', 'ray', 'open_clip', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_to_do_loads_neither_torch_nor_ray(corpus, tiny_recipe):
    code = (
        "import sys\nfrom jobs.cli import call\n"
        f"assert call(['run', {str(tiny_recipe)!r}, '--corpus', {str(corpus)!r}]) == 0\n"
        "sys.exit(bool({'torch', 'ray', 'vllm', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_more_records_leave_the_old_parts_and_models_alone(corpus, load):
    before = files_of(corpus)
    said = run(load("sources.0.num_records=160"), corpus)
    after = files_of(corpus)
    assert "ingest         40 rows in 1 parts (4 unchanged)" in said
    kept = [name for name in before if name.startswith(("tables/records", "models/"))]
    assert all(after[name] == before[name] for name in kept)
    assert not faults(corpus)


def test_images_that_have_codes_are_not_encoded_again(corpus, load):
    for path in open_corpus(corpus)[1].files("tokens"):
        rows = read_table(path).to_pylist()
        write_table(path, [row | {"codes": bytes(len(row["codes"]))} for row in rows], TOKENS)
    run(load("ingest.max_caption_characters=10000"), corpus, until="tokenize")
    _, changed = open_corpus(corpus)
    assert len(changed.files("records")) == len(changed.files("tokens")) == 4
    codes = changed.query("SELECT DISTINCT bit_count(codes::BIT) FROM tokens").fetchall()
    assert codes == [(0,)]


def test_a_removed_source_leaves_the_shards(corpus, load):
    run(load("sources=[{kind: shapes, num_records: 120, size: 32}]"), corpus)
    streams = {row["stream"] for row in status(open_corpus(corpus)[1])["samples"]}
    assert streams == {"image", "mixed"}
    assert not faults(corpus)


def test_until_stops_after_that_stage(load, tmp_path):
    run(load(), tmp_path / "c", until="score")
    assert {path.name for path in (tmp_path / "c" / "tables").iterdir()} == {
        "records", "rejects-ingest", "answers", "rejects-ask", "variants", "rejects-synthesize",
        "pictures", "rejects-measure", "scores", "rejects-score",
    }  # fmt: skip
    assert faults(tmp_path / "c")
    with pytest.raises(UserError, match="there is no stage 'scores'"):
        run(load(), tmp_path / "c", until="scores")


def test_a_damaged_and_a_missing_shard_are_found(corpus):
    (folder,) = (corpus / "shards").iterdir()
    path = folder / "image-000000.tar"
    path.write_bytes(path.read_bytes().replace(b"circle", b"square", 1))
    (folder / "text-000000.tar").unlink()
    checks = {finding.check: finding for finding in faults(corpus)}
    damaged = checks["every shard has the SHA-256 of the manifest"]
    assert set(damaged.examples) == {"image-000000.tar", "text-000000.tar"}


def test_a_sample_that_the_table_does_not_have_is_found(corpus):
    from pipeline.engine.tables import read_table, write_table
    from pipeline.engine.token_schemas import SAMPLES

    path = max(open_corpus(corpus)[1].files("samples"), key=lambda path: read_table(path).num_rows)
    rows = read_table(path)
    write_table(path, rows.slice(1), SAMPLES)
    checks = {finding.check: finding for finding in faults(corpus)}
    found = checks["the shards hold the samples of the table, no more"]
    assert found.examples == (f"{rows['shard'][0]}: {rows['key'][0]}",)


def test_a_lost_part_is_found(corpus):
    next((corpus / "tables" / "selection").rglob("*.parquet")).unlink()
    assert "every part of every table is committed" in {f.check for f in faults(corpus)}


def test_a_record_in_two_places_is_found(corpus):
    # As if a bug had rejected a part's records and shipped them, too.
    import pyarrow.parquet as pq

    from pipeline.engine.schemas import REJECTS, reject
    from pipeline.engine.tables import write_table

    _, opened = open_corpus(corpus)
    name, samples = next(iter(opened.tables["samples"].items()))
    record_id = pq.read_table(samples)["record_ids"][0][0].as_py()
    row = reject(record_id=record_id, stage="select", reason="planted")
    write_table(opened.rejects["select"][name], [row], REJECTS)
    assert any("once" in finding.check for finding in faults(corpus))


def test_two_runs_on_one_corpus_do_not_meet(load, tmp_path):
    held = r"is being filled by process \d+ on \S+ since"
    with holding(tmp_path / "c"), pytest.raises(UserError, match=held) as raised:
        run(load(), tmp_path / "c")
    assert raised.value.exit_code == 2
    run(load(), tmp_path / "c", until="ingest")


@pytest.mark.e2e
@pytest.mark.parametrize(
    "until",
    ["clip", *(pytest.param(each, marks=pytest.mark.slow) for each in ("records", "samples"))],
)
def test_a_killed_run_goes_on_to_the_same_bytes(made, tiny_recipe, load, tmp_path, until):
    """SIGKILL as soon as the first file under a table or a model appears."""
    root = tmp_path / "killed"
    code = (
        "import sys, os, signal, threading, time, pathlib\n"
        f"root = pathlib.Path({str(root)!r})\n"
        "def watch():\n"
        "    ends = {'.parquet', '.json'}\n"
        f"    while not [f for f in root.glob('*/{until}/*/*') if f.suffix in ends]:\n"
        "        time.sleep(0.001)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "threading.Thread(target=watch, daemon=True).start()\n"
        f"sys.argv = ['anymix', 'run', {str(tiny_recipe)!r}, '--corpus', {str(root)!r}]\n"
        "from jobs.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    run(load(), root)
    assert files_of(root) == files_of(made)
    assert not faults(root)


def test_events_tell_what_was_done(made):
    events = [json.loads(line) for line in (made / "events.jsonl").read_text().splitlines()]
    assert {"ingest", "clip", "deduplicate", "shards"} <= {event.get("stage") for event in events}
    assert (events[0]["event"], events[-1]["event"]) == ("run-started", "run-ended")
    assert all(event["time"] for event in events)


def test_gc_and_forget_that_find_nothing_say_no_more(corpus, capsys):
    assert call(["gc", str(corpus), "--yes"]) == 0
    assert capsys.readouterr().out == "There is nothing to remove.\n"
    assert call(["forget", str(corpus), "--source-prefix", "elsewhere/"]) == 0
    said = "No record is meant by that; those to come are kept out.\n"
    assert capsys.readouterr().out == said


def test_a_corpus_of_another_version_says_so(corpus):
    path = corpus / "recipe.yaml"
    path.write_text(path.read_text() + "former_setting: 1\n")
    with pytest.raises(UserError, match="another version of anymix: former_setting"):
        open_corpus(corpus)
