"""Kills at random instants; `python -m tests.faults.torture` does more of them."""

import random

import pytest
from rich.console import Console

from jobs.progress import Reporter
from jobs.recipe import load_recipe
from jobs.run import fill
from jobs.stages import list_parts
from tests.faults.torture import campaign, promised_files, write_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_kills_other_orders_and_other_numbers_of_workers_leave_the_same_bytes(tmp_path):
    recipe = write_recipe(tmp_path)
    outcomes = list(campaign(recipe, tmp_path, num_kills=5, seeds=[7]))
    assert sum(len(outcome.kills) for outcome in outcomes) == 5
    assert all(outcome.files_compared > 1000 for outcome in outcomes)
    assert max(outcome.worst_share_twice for outcome in outcomes) <= 0.02

    alone = load_recipe(recipe, ["run.num_workers=1"])
    parts = list_parts(alone, {})
    random.Random(5).shuffle(parts)  # noqa: S311
    root, quiet = tmp_path / "shuffled", Reporter(Console(quiet=True))
    fill(alone, root, until="text", parts=parts, reporter=quiet)
    # The numbers of shards follow the order of the source, so these are written in that.
    fill(alone, root, reporter=quiet)
    assert promised_files(root) == promised_files(tmp_path / "calm")
