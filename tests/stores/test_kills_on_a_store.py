"""SIGKILLs at random instants on `s3://`; `python -m tests.faults.torture --store s3` does more."""

import pytest

from tests.faults.torture import campaign, log_of, write_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_kills_leave_the_bytes_of_the_undisturbed_run_on_a_store(store, tmp_path):
    recipe = write_recipe(tmp_path, num_records=60)
    folder = store.path("killed")
    outcomes = list(campaign(recipe, folder, num_kills=3, seeds=[11]))
    assert sum(len(outcome.kills) for outcome in outcomes) == 3
    assert all(outcome.files_compared > 100 for outcome in outcomes)
    for outcome in outcomes:
        # A dead holder of this machine is known to be dead: nobody waits for its lease to expire.
        log = log_of(recipe, folder / f"killed-{outcome.seed}")
        assert "waiting up to" not in log.read_text()
