"""Several Ray nodes on one machine, one of which is lost in the middle of a stage."""

import pytest
import ray
from ray.cluster_utils import Cluster

from pipeline.engine.ray_session import connect_to_ray
from pipeline.engine.runner import Link, RayRunner
from pipeline.engine.worker import RunContext
from tests.faults.stage import committed_ids, corpus_of, stage

pytestmark = pytest.mark.e2e


@pytest.fixture
def cluster(monkeypatch):
    """A head and two more nodes, of one worker each."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def test_a_lost_node_costs_nothing_but_its_parts_in_hand(tmp_path, cluster, fault):
    others = [cluster.add_node(num_cpus=1) for _ in range(2)]
    connect_to_ray()
    cluster.wait_for_nodes()
    corpus = corpus_of(tmp_path, num_parts=24)
    spec = stage("Echo", seconds=0.1)
    tasks = {task.work.part: task for task in corpus.resolve_stage(spec)}
    runner = RayRunner(
        num_workers=3, context=RunContext(run="test", attempts=tmp_path / "attempts")
    )
    done = []
    for part in runner.run_chain([Link(spec=spec, tasks=tasks)], {}):
        done.append(part)
        if len(done) == 3:
            cluster.remove_node(others.pop(), allow_graceful=False)
    assert sorted(part.part for part in done) == sorted(tasks)
    assert len(committed_ids(corpus)) == len(set(committed_ids(corpus))) == 24 * 5
    assert not list((tmp_path / "attempts").rglob("*.json"))
    fault("a node of the cluster is lost", "nothing: its parts are done again on another")
