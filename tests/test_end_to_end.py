"""The whole way on a small recipe, with the real vLLM: what `make demo` does, in minutes."""

import json
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import webdataset

from jobs.run import open_corpus
from pipeline.ledger.audit import audit
from pipeline.synthesis.forms import KINDS

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "jobs" / "recipes" / "tiny.yaml"
FEW_TEXTS = ["--set", "synthesis.limit=4", "--set", "synthesis.attempts=2"]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus and a run of the tiny recipe, by the README's commands."""
    folder = tmp_path_factory.mktemp("tiny")
    corpus, run = str(folder / "corpus"), str(folder / "run")
    for command in (
        ["run", str(RECIPE), "--corpus", corpus, *FEW_TEXTS],
        ["train", str(RECIPE), "--corpus", corpus, "--out", run],
        ["sample", run, "--out", f"{run}/samples"],
        ["card", corpus],
        ["report", corpus, run],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "jobs.cli", *command],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return folder


@pytest.fixture(scope="module")
def corpus(folder):
    return open_corpus(folder / "corpus")[1]


def test_every_source_record_is_in_the_shards_or_in_the_rejects_once(corpus):
    assert not [finding for finding in audit(corpus) if finding.faults]


def test_the_llm_wrote_texts_of_the_kinds_that_it_was_asked_for(corpus):
    rows = corpus.query("SELECT kind, text, model, style FROM variants").fetchall()
    # How many pass the critics is up to so small a model.
    assert rows
    assert {kind for kind, *_ in rows} <= set(KINDS)
    assert all(text.strip() for _, text, *_ in rows)
    assert all(model.startswith("smollm2-135m-instruct@") for _, _, model, _ in rows)
    assert all((kind == "style") == (style is not None) for kind, _, _, style in rows)


def test_what_the_llm_was_asked_for_is_there_or_rejected(corpus):
    ((records, asked),) = corpus.query(
        "SELECT count(DISTINCT record_id), sum(len(forms))::BIGINT FROM answers"
    ).fetchall()
    assert records == 4
    ((written,),) = corpus.query("SELECT count(*) FROM variants").fetchall()
    ((refused,),) = corpus.query(
        "SELECT count(*) FROM rejects WHERE stage = 'synthesize'"
    ).fetchall()
    assert written + refused == asked


def test_stock_webdataset_reads_the_shards(corpus):
    for stream in ("text", "image", "mixed"):
        paths = sorted(map(str, corpus.shards.glob(f"{stream}-[0-9]*.tar")))
        samples = list(webdataset.WebDataset(paths, shardshuffle=False).decode())
        assert samples
        for sample in samples:
            assert sample["json"]["record_ids"]
            assert "txt" in sample if stream == "text" else sample["codes.npy"].dtype == "uint16"


def test_stock_datasets_reads_the_shards(corpus, tmp_path):
    for stream in ("text", "image", "mixed"):
        paths = sorted(map(str, corpus.shards.glob(f"{stream}-[0-9]*.tar")))
        rows = datasets.load_dataset(
            "webdataset", data_files={"train": paths}, split="train", cache_dir=str(tmp_path)
        )
        ((expected,),) = corpus.query(
            f"SELECT count(*) FROM samples WHERE stream = '{stream}' AND split = 'train'"
        ).fetchall()
        assert len(rows) == expected


def test_the_model_was_evaluated_and_sampled(folder):
    found = json.loads((folder / "run" / "evaluation.json").read_text())
    assert {"text", "image"} <= set(found["held_out"]["all"])
    assert (
        found["condition"]["low"] <= found["condition"]["gain_nats"] <= found["condition"]["high"]
    )
    assert (folder / "run" / "samples" / "sheet.png").stat().st_size > 1000


def test_card_and_report_show_the_corpus(folder):
    card = (folder / "corpus" / "README.md").read_text()
    assert "CC-BY-SA-4.0" in card
    report = (folder / "corpus" / "report.html").read_text()
    assert "data:image" in report
    assert 'http-equiv="refresh"' not in report


def test_a_second_run_changes_nothing_and_starts_no_llm(folder):
    command = ["run", str(RECIPE), "--corpus", str(folder / "corpus"), *FEW_TEXTS]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", *command],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr.count("nothing has changed") == 16
