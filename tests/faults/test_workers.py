"""What a worker, a record or a node does to a run, and what is lost: nothing."""

import os
import subprocess
import sys
from traceback import format_exception

import pytest

from pipeline.engine.corpus import Corpus
from pipeline.engine.ray_session import connect_to_ray
from pipeline.engine.runner import InProcessRunner, Link, RayRunner
from pipeline.engine.stage import FitInputs, FitSpec, StageSpec
from pipeline.engine.worker import PartDone, RunContext
from pipeline.errors import FAILED, UserError
from pipeline.settings import Settings
from tests.faults.ray_lines import without_ray_greeting
from tests.faults.stage import ALL, committed_ids, corpus_of, rejects_of, stage

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def ray_here():
    connect_to_ray()
    yield
    import ray

    ray.shutdown()


def do(
    corpus: Corpus, spec: StageSpec, *, workers: int, timeout_s: float | None = None
) -> list[PartDone]:
    context = RunContext(run="test", attempts=corpus.root / "attempts", timeout_s=timeout_s)
    tasks = {task.work.part: task for task in corpus.resolve_stage(spec)}
    runner = (
        RayRunner(num_workers=workers, context=context)
        if workers
        else InProcessRunner(context=context)
    )
    return list(runner.run_chain([Link(spec=spec, tasks=tasks)], {}))


def test_a_worker_that_is_killed_is_started_again(tmp_path, ray_here, fault):
    corpus = corpus_of(tmp_path)
    done = do(corpus, stage("Dies", bad="2-3", once=tmp_path / "once"), workers=2)
    assert (tmp_path / "once").exists()
    assert committed_ids(corpus) == ALL
    assert sorted(each.part for each in done) == sorted(part.name for part in corpus.parts)
    assert not rejects_of(corpus)
    assert not list((tmp_path / "attempts").rglob("*.json"))
    fault("a worker is killed in the middle of a part", "nothing: its part is done again")


def test_a_record_that_kills_its_worker_each_time_goes_into_quarantine(tmp_path, ray_here, fault):
    corpus = corpus_of(tmp_path)
    done = do(corpus, stage("Dies", bad="2-3"), workers=2)
    assert not [each for each in done if each.error]
    assert committed_ids(corpus) == sorted(set(ALL) - {"2-3"})
    (row,) = rejects_of(corpus)
    assert (row["record_id"], row["reason"], row["stage"]) == ("2-3", "check-quarantined", "check")
    assert "3 tries" in row["detail"]
    assert "died without a word" in row["detail"]
    fault(
        "a record kills its worker each time",
        "a reject `STAGE-quarantined`: 3 tries; the last: process N died without a word "
        "(killed, or out of memory)",
        lost="nothing: the record is in the rejects, the rest of its part is done",
    )


def test_a_record_that_hangs_goes_into_quarantine(tmp_path, ray_here, fault):
    corpus = corpus_of(tmp_path)
    do(corpus, stage("Hangs", bad="1-0"), workers=2, timeout_s=0.5)
    assert committed_ids(corpus) == sorted(set(ALL) - {"1-0"})
    (row,) = rejects_of(corpus)
    assert row["reason"] == "check-quarantined"
    assert "no step for 0.5 s: it hangs" in row["detail"]
    fault(
        "a record hangs",
        "a reject `STAGE-quarantined`: 3 tries; the last: no step for N s: it hangs "
        "(`run.timeout_s`)",
        lost="nothing: the record is in the rejects, the rest of its part is done",
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_record_that_raises_goes_into_quarantine_with_its_traceback(
    tmp_path, ray_here, workers, fault
):
    corpus = corpus_of(tmp_path)
    do(corpus, stage("Raises", bad="3-4"), workers=workers)
    assert committed_ids(corpus) == sorted(set(ALL) - {"3-4"})
    (row,) = rejects_of(corpus)
    assert row["reason"] == "check-quarantined"
    assert "ValueError: no pixels in 3-4" in row["detail"]
    assert "workers.py" in row["detail"]
    fault(
        "a record makes a stage raise each time",
        "a reject `STAGE-quarantined`: 3 tries; the last: with the traceback",
        lost="nothing: the record is in the rejects, the rest of its part is done",
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_part_that_cannot_be_done_is_told_and_the_others_are_done(
    tmp_path, ray_here, workers, fault
):
    corpus = corpus_of(tmp_path)
    done = do(corpus, stage("FailsBefore", bad="0-1"), workers=workers)
    (failed,) = [each for each in done if each.error]
    assert failed.part == corpus.parts[0].name
    assert "RuntimeError: out of cheese" in failed.error
    assert committed_ids(corpus) == [each for each in ALL if not each.startswith("0-")]
    fault(
        "a part fails three times and no single record is to blame",
        "exit code 1: STAGE could not do part PART: 3 tries; the last: with the traceback. All "
        "other parts are committed",
        lost="nothing: the part is missing, the audit names it, the next run does it",
    )


def test_an_error_in_a_fit_through_ray_is_told_in_a_line(tmp_path, ray_here, fault):
    spec = FitSpec(
        name="model", version=1, reads=(), settings=Settings(),
        fit="tests.faults.workers:failing_fit",
    )  # fmt: skip
    runner = RayRunner(num_workers=1, context=RunContext(run="test", attempts=tmp_path))
    inputs = FitInputs(tables={}, models={})
    with pytest.raises(UserError, match=r"fit model: ValueError: no pixels") as raised:
        list(runner.run_fit(spec, inputs, tmp_path / "models" / "model"))
    assert "\n" not in raised.value.message
    assert raised.value.exit_code == FAILED
    assert "Traceback" in "".join(format_exception(raised.value.__cause__))
    fault(
        "a fit fails by an error that nobody has foreseen",
        "exit code 1: fit NAME: TYPE: MESSAGE (FILE:LINE). The whole traceback is at the end of "
        "the corpus's events.jsonl",
    )


def test_quarantine_gives_the_same_bytes_on_another_day(tmp_path, ray_here):
    for name in ("first", "second"):
        do(corpus_of(tmp_path / name), stage("Raises", bad="3-4"), workers=2)
    first, second = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name / "tables" / "duplicates").rglob("*.parquet")
        }
        for name in ("first", "second")
    )
    assert first == second


def test_a_chain_gives_each_part_to_all_its_stages(tmp_path, ray_here):
    from dataclasses import replace

    from pipeline.engine.schemas import DUPLICATES

    corpus = corpus_of(tmp_path)
    first = stage("Echo", name="first")
    second = replace(stage("Echo", name="second"), writes="tokens", schema=DUPLICATES)
    links = [
        Link(spec=spec, tasks={task.work.part: task for task in corpus.resolve_stage(spec)})
        for spec in (first, second)
    ]
    half = dict(list(links[0].tasks.items())[:2])
    links[0] = Link(spec=first, tasks=half)
    context = RunContext(run="test", attempts=tmp_path / "attempts")
    done = list(RayRunner(num_workers=2, context=context).run_chain(links, {}))
    assert sorted(each.stage for each in done) == ["first"] * 2 + ["second"] * 4
    assert len(corpus.files("duplicates")) == 2
    assert len(corpus.files("tokens")) == 4


def test_what_stops_a_stage_is_told_in_words_and_ray_prints_nothing(tmp_path, ray_here):
    import ray

    here = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    told = subprocess.run(
        [sys.executable, "-m", "tests.faults.stopped_stages", str(tmp_path)],
        env=os.environ | here, capture_output=True, text=True, check=True,
    )  # fmt: skip
    full = "1 /corpus/2-3 cannot be written: the disk is full (No space left on device)"
    again = "Make room. What is committed stays; run the same command again."
    lacks = ["2 the model is not there", "Put it there."]
    assert told.stdout.splitlines() == [full, again, *lacks, *lacks]
    assert without_ray_greeting(told.stderr) == []
