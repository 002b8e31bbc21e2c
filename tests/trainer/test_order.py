import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.order import Draws, Permutation, StreamOrder

sizes = st.lists(st.integers(1, 9), min_size=1, max_size=7)


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_a_permutation_holds_every_number_once(size: int, key: int) -> None:
    places = Permutation(size, key)(np.arange(size))
    assert sorted(places.tolist()) == list(range(size))


def test_every_number_comes_to_every_place_as_often() -> None:
    counts = np.zeros((24, 24))
    for key in range(960):
        counts[np.arange(24), Permutation(24, key)(np.arange(24))] += 1
    chi_square = ((counts - 40) ** 2 / 40).sum()
    assert chi_square < 529 + 4 * (2 * 529) ** 0.5  # four deviations above its mean


def test_a_place_far_into_a_large_set_is_found_without_the_ones_before_it() -> None:
    order = StreamOrder([10**9] * 10, seed=0, stream="image", shuffle_shards=None)
    shards, samples = order.samples(7 * 10**10 + 123, 7 * 10**10 + 133)
    assert len({*zip(shards.tolist(), samples.tolist(), strict=True)}) == 10


@given(sizes, st.integers(0, 9), st.none() | st.integers(1, 4))
def test_an_epoch_holds_every_sample_once_and_any_stretch_of_it_can_be_asked_for(
    sizes: list[int], seed: int, shuffle_shards: int | None
) -> None:
    order = StreamOrder(sizes, seed=seed, stream="image", shuffle_shards=shuffle_shards)
    whole = np.stack(order.samples(0, 3 * order.num_samples))
    for epoch in np.split(whole, 3, axis=1):
        found = {*zip(*epoch.tolist(), strict=True)}
        assert found == {(n, sample) for n, size in enumerate(sizes) for sample in range(size)}
    cut = seed * order.num_samples // 5 + 1
    parts = [order.samples(0, cut), order.samples(cut, 3 * order.num_samples)]
    assert np.concatenate([np.stack(part) for part in parts], axis=1).tolist() == whole.tolist()


def test_epochs_seeds_and_streams_have_orders_of_their_own() -> None:
    def found(seed: int, stream: str, start: int) -> list[int]:
        order = StreamOrder([100], seed=seed, stream=stream, shuffle_shards=None)
        return order.samples(start, start + 100)[1].tolist()

    orders = [found(0, "image", 0), found(0, "image", 100), found(1, "image", 0), found(0, "a", 0)]
    assert len(set(map(tuple, orders))) == 4


@given(sizes, st.integers(1, 3))
def test_so_many_shards_at_a_time_are_read_and_none_again(sizes: list[int], together: int) -> None:
    order = StreamOrder(sizes, seed=0, stream="image", shuffle_shards=together)
    shards = order.samples(0, order.num_samples)[0].tolist()
    first = {shard: shards.index(shard) for shard in shards}
    last = {shard: len(shards) - 1 - shards[::-1].index(shard) for shard in shards}
    for place in range(len(shards)):
        in_hand = [shard for shard in first if first[shard] <= place <= last[shard]]
        assert len(in_hand) <= together


def test_draws_are_even_independent_and_repeatable() -> None:
    draws = Draws(0, "image")
    seeds = draws.seeds(np.arange(20_000)).tolist()
    streams = [draws.of(seed) for seed in seeds]
    one, other = ([draw() for draw in streams] for _ in range(2))
    for values in (one, other):
        assert np.histogram(values, 10, (0, 1))[0] == pytest.approx(2000, abs=170)
    for first, second in ((one, other), (one[1:], one[:-1])):
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert [draws.of(seed)() for seed in seeds[:9]] == one[:9]
    assert Draws(0, "mixed").seeds(np.arange(9)).tolist() != seeds[:9]
