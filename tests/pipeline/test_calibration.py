from statistics import NormalDist

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.calibration import auc, calibrate, false_accept_cut


def apart(true, wrong):
    """The AUC of pairs that are each of another record."""
    true, wrong = np.array(true), np.array(wrong)
    return auc(true, wrong, np.arange(len(true)), len(true) + np.arange(len(wrong)))


def test_auc_is_the_chance_that_a_true_pair_scores_above_a_wrong_one():
    assert apart([2.0, 3.0], [0.0, 1.0]).value == 1.0
    assert apart([0.0, 1.0], [2.0, 3.0]).value == 0.0
    assert apart([1.0, 1.0], [1.0, 1.0]).value == 0.5
    assert apart([], [1.0]).value is None


def test_nineteen_of_twenty_intervals_of_the_auc_hold_the_true_one():
    rng = np.random.default_rng(0)
    truth = NormalDist().cdf(1 / 2**0.5)  # of two normal distributions one apart
    holds = []
    for _ in range(300):
        found = apart(rng.normal(1, size=120), rng.normal(size=150))
        holds.append(found.low <= truth <= found.high)
    assert 0.91 <= np.mean(holds) <= 0.99


def test_pairs_of_one_record_count_as_one_for_the_interval():
    rng = np.random.default_rng(0)
    true, wrong = rng.normal(1, size=100), rng.normal(size=100)
    once = auc(true, wrong, np.arange(100), np.arange(100))
    records = np.repeat(np.arange(100), 9)
    often = auc(np.repeat(true, 9), np.repeat(wrong, 9), records, records)
    assert (often.value, often.low) == (pytest.approx(once.value), pytest.approx(once.low))


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=300), st.floats(0.01, 0.5))
def test_no_more_wrong_pairs_reach_the_cut_than_were_wanted(wrong, rate):
    wrong = np.unique(wrong)  # pairs that score the same lie on the same side
    found = false_accept_cut(wrong, rate)
    if found.value is not None:
        assert (wrong >= found.value).mean() <= rate + 1 / len(wrong)
    bounds = [x for x in (found.low, found.value, found.high) if x is not None]
    assert bounds == sorted(bounds)


def test_the_cut_keeps_new_wrong_pairs_at_the_rate_and_its_interval_holds_the_quantile():
    rng = np.random.default_rng(0)
    truth = NormalDist().inv_cdf(0.95)
    passed, holds = [], []
    for _ in range(300):
        found = false_accept_cut(rng.normal(size=400), 0.05)
        passed.append(1 - NormalDist().cdf(found.value))
        holds.append(found.low <= truth <= found.high)
    assert np.mean(passed) == pytest.approx(0.05, abs=0.002)
    assert 0.92 <= np.mean(holds) <= 0.99


def test_too_few_wrong_pairs_give_no_cut():
    assert false_accept_cut(np.arange(18.0), 0.05).value is None
    assert false_accept_cut(np.arange(19.0), 0.05).value == 18.0


@pytest.fixture
def scored():
    """Sixty records with true, shuffled and negative pairs, as the tables have them."""
    connection = duckdb.connect()
    connection.execute("CREATE TABLE scores (record_id VARCHAR, variant_id VARCHAR, kind VARCHAR,"
                       " clip_score FLOAT, clip_score_shuffled FLOAT)")  # fmt: skip
    connection.execute(
        "CREATE TABLE variants (record_id VARCHAR, variant_id VARCHAR, form VARCHAR)"
    )
    rng = np.random.default_rng(0)
    for number in range(60):
        true, wrong, absent = rng.normal((3, 0, 0))
        rows = [(f"r{number}", "original", "original", true, wrong)]
        rows.append((f"r{number}", "a", "negative", absent, None))
        rows.append((f"r{number}", "c", "negative", true, None))
        rows.append((f"r{number}", "s", "style", None, None))
        connection.executemany("INSERT INTO scores VALUES (?, ?, ?, ?, ?)", rows)
        forms = [(f"r{number}", "a", "absent"), (f"r{number}", "c", "contrast")]
        connection.executemany("INSERT INTO variants VALUES (?, ?, ?)", forms)
    return connection


def test_true_pairs_are_put_beside_shuffled_ones_and_each_form_of_hard_negative(scored):
    found = calibrate(scored, 0.05)
    assert found["num_pairs"] == 60
    assert 0.95 < found["auc"]["low"] < found["auc"]["value"] <= 1
    assert not found["is_weak"]
    assert set(found["negatives"]) == {"absent", "contrast"}
    assert found["negatives"]["absent"]["auc"]["value"] > 0.95
    assert found["negatives"]["contrast"]["auc"]["value"] == pytest.approx(0.5)
    assert found["negatives"]["contrast"]["accepted"] == found["true_accept"]
    counts = {name: sum(bins) for name, bins in found["counts"].items()}
    assert counts == {"true": 60, "shuffled": 60, "negative": 120}


def test_a_scorer_that_cannot_tell_pairs_apart_is_weak(scored):
    scored.execute("UPDATE scores SET clip_score_shuffled = clip_score WHERE kind = 'original'")
    found = calibrate(scored, 0.05)
    assert found["auc"]["value"] == pytest.approx(0.5)
    assert found["is_weak"]


def test_a_corpus_without_scored_pairs_has_no_calibration(scored):
    scored.execute("DELETE FROM scores")
    assert calibrate(scored, 0.05)["num_pairs"] == 0
