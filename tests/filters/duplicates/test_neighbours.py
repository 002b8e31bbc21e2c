import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.duplicates import neighbours
from filters.duplicates.neighbours import copies_among, copies_of


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def directions(count, width=16, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(count, width)))


def on_a_circle(degrees):
    angles = np.radians(np.asarray(degrees, float))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def by_comparing_all(vectors, radius):
    cosines = vectors @ vectors.T
    of = np.full(len(vectors), -1)
    for number in range(len(vectors)):
        near = [o for o in range(number) if of[o] < 0 and cosines[number, o] >= 1 - radius]
        of[number] = min(near, default=-1)
    return of


@settings(deadline=None)
@given(st.lists(st.integers(0, 359), max_size=40), st.integers(1, 30))
def test_each_copy_is_near_one_that_stays(degrees, apart):
    vectors, radius = on_a_circle(degrees).reshape(-1, 2), 1 - np.cos(np.radians(apart + 0.5))
    found = copies_among(vectors, float(radius), 0)
    assert (found.of == by_comparing_all(vectors, radius)).all()
    copies = np.flatnonzero(found.of >= 0)
    assert (found.of[found.of[copies]] == -1).all()
    cosines = (vectors[copies] * vectors[found.of[copies]]).sum(axis=1)
    assert found.distance[copies] == pytest.approx(1 - cosines, abs=1e-5)


def test_many_small_steps_make_no_chain():
    found = copies_among(on_a_circle(range(0, 60, 5)), float(1 - np.cos(np.radians(11))), 0)
    # Each that stays takes those up to 11 degrees away; the whole quarter does not become one.
    assert found.of.tolist() == [-1, 0, 0, -1, 3, 3, -1, 6, 6, -1, 9, 9]


def test_planted_copies_among_many_are_found():
    vectors = directions(6000, width=32)
    copies = unit(vectors[:300] + directions(300, width=32, seed=1) * 0.4)
    found = copies_among(np.concatenate([vectors, copies]), 0.12, 0)
    right = found.of[6000:] == np.arange(300)
    assert right.mean() > 0.97
    assert (found.of[:6000] < 0).all()


def test_batches_change_nothing(monkeypatch):
    vectors = on_a_circle(np.random.default_rng(0).integers(0, 360, 200))
    whole = copies_among(vectors, 0.002, 0)
    monkeypatch.setattr(neighbours, "_AT_ONCE", 7)
    assert (copies_among(vectors, 0.002, 0).of == whole.of).all()


def test_a_copy_may_be_mirrored():
    vectors = unit(np.asarray([[1, 1, 2], [1, -1, -2], [1, -1, 2], [-1, 1, 2]]))
    assert copies_among(vectors, 0.01, mirrored=2).of.tolist() == [-1, 0, -1, -1]
    assert copies_of(vectors[:1], vectors, 0.01, mirrored=2).of.tolist() == [0, 0, -1, -1]


def test_copies_of_given_originals_are_found_and_nothing_else():
    found = copies_of(on_a_circle([0, 90]), on_a_circle([1, 45, 1, 91]), 0.01, 0)
    assert found.of.tolist() == [0, -1, 0, 1]


def test_nothing_is_a_copy_among_nothing():
    nothing = np.empty((0, 4), np.float32)
    assert copies_among(nothing, 0.1, 0).of.tolist() == []
    assert copies_of(nothing, directions(2, width=4), 0.1, 0).of.tolist() == [-1, -1]
