"""A whole corpus on `s3://`, against a real S3 protocol server."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from rich.console import Console

from jobs.cli import call
from jobs.progress import Reporter
from jobs.recipe import load_recipe
from jobs.run import fill, open_corpus
from pipeline.engine.fingerprint import hash_bytes
from pipeline.engine.lock import LeaseTimes, holding
from pipeline.ledger.audit import audit
from tests.jobs.corpora import SMALL_MODELS

# Small: no CLIP step and no picture more than what every stage needs to have something to do.
RECIPE = (
    SMALL_MODELS
    + """
name: on-a-store
sources:
  - {kind: shapes, num_records: 40, size: 32}
  - {kind: pydoc, limit: 10}
ingest: {rows_per_part: 25, validation_share: 0.2}
train:
  {model: {layers: 1, width: 32, heads: 2}, steps: 2, tokens_per_step: 512, evaluate_every_steps: 2}
evaluate: {max_pairs: 2, max_drawn: 2, max_retrieved: 2, max_described: 2, num_resamples: 100}
run: {num_workers: 0}
"""
)


def run(recipe, root, *changes, until=None):
    loaded = load_recipe(recipe, changes)
    reporter = Reporter(Console(file=open(os.devnull, "w")))  # noqa: SIM115, PTH123
    fill(loaded, root, until=until, reporter=reporter)


def files_of(root):
    """The hash of every table, model and shard."""
    paths = [path for each in ("tables", "models", "shards") for path in (root / each).rglob("*")]
    return {
        str(path).removeprefix(str(root)): hash_bytes(path.read_bytes())
        for path in paths
        if path.is_file()
    }


def command(*arguments):
    return [sys.executable, "-m", "jobs.cli", *map(str, arguments)]


@pytest.fixture(scope="session")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def made(recipe, tmp_path_factory):
    """The corpus in a local folder: what a store must hold, too."""
    root = tmp_path_factory.mktemp("local") / "corpus"
    run(recipe, root)
    return root


@pytest.mark.e2e
def test_a_corpus_on_a_store_has_the_bytes_of_a_local_one_and_every_command_reads_it(
    recipe, made, store, tmp_path, capsys
):
    root = store.path("whole")
    run(recipe, root)
    assert files_of(root) == files_of(made)
    assert not [finding for finding in audit(open_corpus(root)[1]) if finding.faults]
    assert call(["status", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["corpus"] == str(root)
    for name in ("audit", "card", "report"):
        assert call([name, str(root)]) == 0
    assert (root / "README.md").exists()
    out = tmp_path / "run"
    assert call(["train", str(recipe), "--corpus", str(root), "--out", str(out)]) == 0
    before = files_of(root)
    run(recipe, root)
    assert files_of(root) == before


@pytest.mark.slow
def test_workers_of_ray_give_the_same_bytes_on_a_store(recipe, made, store):
    root = store.path("ray")
    run(recipe, root, "run.num_workers=2")
    assert files_of(root) == files_of(made)


@pytest.mark.e2e
@pytest.mark.parametrize(
    "until",
    ["samples", *(pytest.param(each, marks=pytest.mark.slow) for each in ("records", "clip"))],
)
def test_a_run_killed_between_two_puts_goes_on_to_the_same_bytes(recipe, made, store, until):
    """SIGKILL when a table's or model's first file has been put and the next one has not."""
    root = store.path(f"killed-{until}")
    code = (
        "import os, signal, sys\n"
        "from pipeline.engine import storage\n"
        "put = storage._put\n"
        "def kill_after(file, path, **how):\n"
        "    put(file, path, **how)\n"
        f"    if '/{until}/' in str(path):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "storage._put = kill_after\n"
        "from jobs.cli import call\n"
        "call(sys.argv[1:])\n"
    )
    arguments = ["run", str(recipe), "--corpus", str(root)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, timeout=200)
    assert done.returncode == -signal.SIGKILL
    run(recipe, root)
    assert files_of(root) == files_of(made)


def test_the_second_of_two_runs_stops_and_says_who_holds_the_corpus(recipe, store, capsys):
    root = store.path("two-runs")
    with holding(root, LeaseTimes(renew_every=0.5)):  # the other one waits for a sign of life
        done = subprocess.run(
            command("run", recipe, "--corpus", root),
            check=False, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert done.returncode == 2
    assert f"{root} is being filled by process {os.getpid()} on" in done.stderr
    assert not (root / "recipe.yaml").exists()


@pytest.mark.slow
def test_of_two_runs_started_at_once_one_fills_the_corpus_and_the_other_names_it(
    recipe, made, store, tmp_path
):
    root = store.path("at-once")
    # With Ray a run lasts longer than the ten seconds in which it gives a sign of life.
    run_it = command("run", recipe, "--corpus", root, "--set", "run.num_workers=2")
    said = [tmp_path / "first.log", tmp_path / "second.log"]
    runs = []
    for path in said:
        with path.open("w") as log:
            runs.append(subprocess.Popen(run_it, stdout=log, stderr=log, start_new_session=True))
    codes = [each.wait(timeout=300) for each in runs]
    assert sorted(codes) == [0, 2], "".join(path.read_text() for path in said)
    winner, loser = runs[codes.index(0)], said[codes.index(2)]
    words = " ".join(loser.read_text().split())
    assert f"{root} is being filled by process {winner.pid} on {socket.gethostname()}" in words
    events = [json.loads(line) for line in (root / "events.jsonl").read_text().splitlines()]
    assert {event["run"].rpartition("-")[2] for event in events} == {str(winner.pid)}
    assert files_of(root) == files_of(made)
    assert not [finding for finding in audit(open_corpus(root)[1]) if finding.faults]


def test_a_store_that_is_slow_for_a_moment_is_asked_again(recipe, made, store, fault):
    root = store.path("slow")
    store.fail(2)
    run(recipe, root, until="ingest")
    ours = files_of(root)
    assert ours
    assert ours.items() <= files_of(made).items()
    fault("the object store answers 503 for a moment", "nothing: it is asked again")


def test_a_store_that_stays_down_ends_the_run_with_its_name_and_the_remedy(
    recipe, store, capsys, fault
):
    root = store.path("down")
    store.fail(1_000_000)
    assert call(["run", str(recipe), "--corpus", str(root)]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"error {root}: the store failed: " in said
    assert "503" in said
    assert "What is committed stays; run the same command again." in said
    fault(
        "the object store stays down",
        "exit code 1: s3://BUCKET/CORPUS: the store failed: 503 … What is committed stays; run the "
        "same command again.",
    )


def test_a_missing_bucket_is_named(recipe, store, capsys, fault):
    assert call(["run", str(recipe), "--corpus", "s3://no-such-bucket/corpus"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "s3://no-such-bucket: there is no such bucket" in said
    fault(
        "the bucket is missing",
        "exit code 2: s3://BUCKET: there is no such bucket. Make it, or correct the URL.",
    )


def test_a_source_may_lie_on_a_store(store, tmp_path):
    from pipeline.sources.folder import FolderSettings

    (store.path("pictures") / "cat.txt").write_text("a cat")
    settings = FolderSettings(kind="folder", path="s3://test-bucket/pictures")
    assert (settings.path / "cat.txt").read_text() == "a cat"
    assert settings.model_dump(mode="json")["path"] == "s3://test-bucket/pictures"


def test_an_unknown_kind_of_store_is_said(tmp_path, capsys):
    assert call(["status", "ftpx://host/corpus"]) == 2
    assert "there is no kind of store called 'ftpx'" in capsys.readouterr().err
