"""Chains through Ray in which every part has an actor to itself."""

from dataclasses import replace

import pytest

from pipeline.engine.ray_session import connect_to_ray
from pipeline.engine.runner import Link, RayRunner
from pipeline.engine.schemas import DUPLICATES
from pipeline.engine.worker import RunContext
from tests.faults.stage import corpus_of, rejects_of, stage


@pytest.fixture
def ray_here():
    connect_to_ray()
    yield
    import ray

    ray.shutdown()


@pytest.mark.e2e
def test_a_record_that_kills_stages_in_one_process_goes_into_quarantine(tmp_path, ray_here):
    corpus = corpus_of(tmp_path, num_parts=2)
    first = stage("Echo", name="first")
    second = replace(stage("Dies", name="second", bad="1-3"), writes="tokens", schema=DUPLICATES)
    links = [
        Link(spec=spec, tasks={task.work.part: task for task in corpus.resolve_stage(spec)})
        for spec in (first, second)
    ]
    context = RunContext(run="test", attempts=tmp_path / "attempts")
    done = list(RayRunner(num_workers=2, context=context).run_chain(links, {}))
    assert sorted((each.stage, each.num_rows) for each in done) == [
        ("first", 5), ("first", 5), ("second", 4), ("second", 5),
    ]  # fmt: skip
    (row,) = rejects_of(corpus)
    assert (row["record_id"], row["reason"]) == ("1-3", "second-quarantined")
