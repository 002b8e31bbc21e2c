"""Signals at any instant, and commands next to a run, on a busy machine: the exit codes hold."""

import subprocess
import sys

import pytest

from jobs.stages import steps
from pipeline.engine.lock import holding
from pipeline.errors import STOPPED, WRONG
from tests.faults.stops import STAGES, STEPS, busy, stop_often, stop_within, without_steps
from tests.jobs.corpora import faults, files_of, run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.mark.slow
def test_a_run_that_is_stopped_at_any_instant_ends_with_3_and_goes_on(made, tiny_recipe, tmp_path):
    command = [sys.executable, "-m", "jobs", "run", str(tiny_recipe), "--set", "run.num_workers=2"]
    for number in range(2):
        root = tmp_path / str(number)
        filling = [*command, "--corpus", str(root)]
        with busy():
            codes = stop_often(filling, stages=STAGES, seed=number, longest_s=1.5)
        assert STOPPED in codes
        assert not subprocess.run(filling, check=False, capture_output=True).returncode
        assert files_of(root) == files_of(made)
        assert not faults(root)


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("signals", [("SIGTERM",), ("SIGTERM", "SIGTERM")], ids=["once", "twice"])
def test_a_run_that_is_stopped_within_a_step_ends_with_3_and_goes_on(
    made, tiny_recipe, load, tmp_path, name, signals
):
    flow = steps(load())
    assert [step.name for step in flow] == list(STEPS)
    place = STEPS.index(name)
    if signals == ("SIGTERM",) and place % 2:
        signals = ("SIGINT",)
    root = tmp_path / "corpus"
    without_steps(made, root, flow[place:])
    command = [sys.executable, "-m", "jobs", "run", str(tiny_recipe), "--corpus", str(root)]
    stop_within([*command, "--set", "run.num_workers=2"], root, flow[place], signals)
    run(load(), root)
    assert files_of(root) == files_of(made)
    assert not faults(root)


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_commands_next_to_a_run_say_so_or_do_their_work(corpus, rounds):
    held = f"{corpus} is being filled by process"
    wanted = {
        ("forget", corpus, "--record", "0123456789abcdef"): (WRONG, held),
        ("gc", corpus): (WRONG, held),
        ("status", corpus): (0, ""),
        ("audit", corpus): (0, ""),
    }
    with busy(), holding(corpus):
        for _ in range(rounds):
            for arguments, (code, said) in wanted.items():
                done = subprocess.run(
                    [sys.executable, "-m", "jobs", *map(str, arguments)],
                    capture_output=True, text=True, check=False,
                )  # fmt: skip
                assert done.returncode == code, done.stderr
                assert said in done.stderr
