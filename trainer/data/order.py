"""The order of a stream's samples: a permutation per epoch that is computed and never stored.

Every choice is a hash of the seed and of where the stream is, so that a position says everything:
a loader goes on from a number, and any rank or worker finds the same sample there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

import numpy as np

from pipeline.engine.fingerprint import fingerprint

_NUM_ROUNDS = 10
"""Rounds of the Feistel network; ours: with 6, the permutations of 5 are not yet equally frequent
(chi-square 298 with 119 degrees of freedom over 6,000 keys)."""


class Permutation:
    """A permutation of 0 to `size` - 1 in constant memory, for whole arrays at once.

    A Feistel network permutes the next power of 4, and cycle-walking keeps the results in range
    (Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002, section 4).
    """

    def __init__(self, size: int, key: int) -> None:
        """Args: `size` of at least 1, and a `key` of 64 bits that tells permutations apart."""
        self.size = size
        half = max((size - 1).bit_length() + 1, 2) // 2
        self._bits, self._mask = np.uint64(half), np.uint64((1 << half) - 1)
        self._keys = mix(np.arange(_NUM_ROUNDS, dtype=np.uint64) + np.uint64(key))

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """Where each of `places` (int64, in range) goes, as int64."""
        values = self._encrypt(places.astype(np.uint64))
        while (outside := values >= self.size).any():
            values[outside] = self._encrypt(values[outside])
        return values.astype(np.int64)

    def _encrypt(self, values: np.ndarray) -> np.ndarray:
        left, right = values >> self._bits, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (mix(right ^ key) & self._mask)
        return (left << self._bits) | right


class StreamOrder:
    """Which sample stands at each position of a stream; positions run on from epoch to epoch.

    Shards are shuffled, then taken so many at a time, and the samples of those are shuffled
    together: one download of a shard serves an epoch, also where only some fit on the disk.
    """

    def __init__(
        self, num_samples: Sequence[int], *, seed: int, stream: str, shuffle_shards: int | None
    ) -> None:
        """Fix the order.

        Args:
            num_samples: of each shard; together at least one.
            seed: decides the order.
            stream: streams of one seed have orders of their own.
            shuffle_shards: how many shards are shuffled together; None for all.
        """
        self._num_samples = np.array(num_samples)
        self._key = f"{seed}/{stream}"
        self._together = shuffle_shards or len(num_samples)
        self.num_samples = int(self._num_samples.sum())

    def samples(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The shards and the numbers in them of the samples at positions `start` to `stop` - 1."""
        shards, samples = [], []
        while start < stop:
            epoch, place = divmod(start, self.num_samples)
            num = min(stop - start, self.num_samples - place)
            for found in self._of_epoch(epoch, place, place + num):
                shards.append(found[0])
                samples.append(found[1])
            start += num
        return np.concatenate(shards), np.concatenate(samples)

    def _of_epoch(
        self, epoch: int, start: int, stop: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The shards and numbers of the samples at places `start` to `stop` - 1 of an epoch."""
        shuffle = Permutation(len(self._num_samples), hash_of(self._key, epoch))
        order = shuffle(np.arange(len(self._num_samples)))
        firsts = np.arange(0, len(order), self._together)
        ends = np.cumsum(np.add.reduceat(self._num_samples[order], firsts))
        while start < stop:
            number = int(np.searchsorted(ends, start, side="right"))
            group = order[firsts[number] : firsts[number] + self._together]
            last_of = np.cumsum(self._num_samples[group])
            size = int(last_of[-1])
            begin = int(ends[number]) - size
            num = min(stop - start, begin + size - start)
            shuffle = Permutation(size, hash_of(self._key, epoch, number))
            places = shuffle(np.arange(start - begin, start - begin + num))
            shard = np.searchsorted(last_of, places, side="right")
            yield group[shard], places - (last_of - self._num_samples[group])[shard]
            start += num


class Draws:
    """Numbers in [0, 1) for each sample of a stream; the same whenever asked again."""

    def __init__(self, seed: int, stream: str) -> None:
        self._key = np.uint64(hash_of(f"{seed}/{stream}", "draws"))

    def seeds(self, positions: np.ndarray) -> np.ndarray:
        """(n,) uint64, what decides the numbers of samples at (n,) int64 `positions`."""
        return mix(positions.astype(np.uint64) ^ self._key)

    def of(self, seed: int) -> Callable[[], float]:
        """Gives number after number of a sample with one of the `seeds`."""
        return Random(seed).random  # noqa: S311 - nobody is to be kept from guessing them


def hash_of(*what: int | str) -> int:
    """64 bits that depend on `what` alone."""
    return int(fingerprint(what=what), 16)


def mix(values: np.ndarray) -> np.ndarray:
    """Scrambled uint64 values, one to one.

    Source: SplitMix64 (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators,
    OOPSLA 2014, figure 17), with the constants of David Stafford's variant 13.
    """
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
