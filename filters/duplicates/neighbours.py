"""Copies among many vectors: k-means clusters, and within a vector's own and the next ones all.

A copy may be mirrored. A mirror changes the sign of some columns and leaves the others as they are,
so it is these that clusters are made of, and that are compared first: whatever is near as a whole,
mirrored or not, is near in them. That takes half the columns, and one search instead of two.

What is found does not form chains: a vector is a copy of one that stays, at a distance that was
measured, never of another copy. Vectors are taken in the order in which they are given, so the
result follows from that order alone.

Legend: N vectors, Q queries, D width of a vector, F columns that a mirror leaves as they are: the
first ones. The distance of two unit vectors is one minus their cosine, the larger of both ways to
look at them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import faiss
import numpy as np
from faiss.contrib.ivf_tools import add_preassigned, range_search_preassigned

_PER_CLUSTER = 256
"""Vectors of a cluster, about."""
_PROBED = 16
"""Clusters that are searched, the nearest ones. Up to 4,096 vectors all are compared."""
_TRAINED_ON = 40
"""Vectors of each cluster that k-means sees; faiss asks for 39 at least."""
_ROUNDS = 8
"""Rounds of k-means."""
_ROUNDING = 0.01
"""What half floats may add to the square of a distance, amply."""
_AT_ONCE = 2048
"""Vectors in a batch. Copies stay in the index until its end: 2,048 of one picture are four million
pairs, which is as much memory as this may take."""


class Copies(NamedTuple):
    """What each vector is a copy of."""

    of: np.ndarray
    """(Q,) int64: the first vector that is near and stays; -1 where there is none."""
    distance: np.ndarray
    """(Q,) float32: from that one; 0 where there is none."""


@contextmanager
def _on_all_cores() -> Iterator[None]:
    """faiss on all cores: Ray gives a process one, and faiss takes what it is given."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@_on_all_cores()
def copies_among(vectors: np.ndarray, radius: float, mirrored: int) -> Copies:
    """Which vectors are copies of one that comes before them and is no copy itself.

    Args:
        vectors: (N, D) unit vectors, the one that stays before its copies.
        radius: the largest distance of a copy.
        mirrored: D - F.
    """
    found = _nothing(len(vectors))
    if not len(vectors):
        return found
    fixed = vectors.shape[1] - mirrored
    index = _index(vectors[:, :fixed])
    for start in range(0, len(vectors), _AT_ONCE):
        batch = vectors[start : start + _AT_ONCE].astype(np.float32)
        places = np.arange(start, start + len(batch))
        seen = np.ascontiguousarray(batch[:, :fixed])
        _, clusters = index.quantizer.search(seen, index.nprobe)  # (Q, nprobe), the nearest first
        add_preassigned(index, seen, np.ascontiguousarray(clusters[:, 0]), places)
        for query, other, distance in _near(index, vectors, batch, clusters, radius):
            place = start + query
            if other < place and found.of[place] < 0 and found.of[other] < 0:
                found.of[place], found.distance[place] = other, distance
        index.remove_ids(faiss.IDSelectorBatch(places[found.of[places] >= 0]))
    return found


@_on_all_cores()
def copies_of(originals: np.ndarray, vectors: np.ndarray, radius: float, mirrored: int) -> Copies:
    """Which of `vectors` (Q, D) are copies of one of `originals` (N, D)."""
    found = _nothing(len(vectors))
    if not len(originals):
        return found
    fixed = originals.shape[1] - mirrored
    index = _index(originals[:, :fixed])
    index.add(np.ascontiguousarray(originals[:, :fixed], np.float32))
    for start in range(0, len(vectors), _AT_ONCE):
        batch = vectors[start : start + _AT_ONCE].astype(np.float32)
        seen = np.ascontiguousarray(batch[:, :fixed])
        _, clusters = index.quantizer.search(seen, index.nprobe)
        for query, other, distance in _near(index, originals, batch, clusters, radius):
            if found.of[start + query] < 0:
                found.of[start + query], found.distance[start + query] = other, distance
    return found


def _nothing(count: int) -> Copies:
    return Copies(of=np.full(count, -1), distance=np.zeros(count, np.float32))


def _index(vectors: np.ndarray) -> faiss.IndexIVF:
    """An empty index with the clusters of `vectors` (N, F).

    Half floats are read twice as fast, and what is found is compared in full.
    """
    width = vectors.shape[1]
    clusters = max(1, len(vectors) // _PER_CLUSTER)
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatL2(width),
        width,
        clusters,
        faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_L2,
        False,  # the vectors themselves, not what a cluster's middle leaves of them
    )
    index.nprobe = min(_PROBED, clusters)
    index.cp.niter = _ROUNDS
    index.cp.min_points_per_centroid = 1  # faiss warns of few on stderr
    every = max(1, len(vectors) // (clusters * _TRAINED_ON))
    index.train(np.ascontiguousarray(vectors[::every], np.float32))
    return index


def _near(
    index: faiss.IndexIVF,
    known: np.ndarray,
    batch: np.ndarray,
    clusters: np.ndarray,
    radius: float,
) -> Iterator[tuple[int, int, float]]:
    """Each vector of a batch with those in the index that are near to it, in the order of both.

    Yields:
        The place in the batch, the place in `known`, and the distance.
    """
    fixed = index.d
    # Those of one cluster after one another read the same lists, which then are in the cache.
    order = np.argsort(clusters[:, 0], kind="stable")
    # The square of the Euclidean distance of unit vectors is twice theirs.
    limits, _, others = range_search_preassigned(
        index,
        np.ascontiguousarray(batch[order, :fixed]),
        2 * radius + _ROUNDING,
        np.ascontiguousarray(clusters[order]),
    )
    queries = np.repeat(order, np.diff(limits).astype(np.int64))
    products = batch[queries] * known[others]
    cosines = products[:, :fixed].sum(axis=1) + abs(products[:, fixed:].sum(axis=1))
    near = cosines >= 1 - radius
    pairs = sorted(zip(queries[near], others[near], cosines[near], strict=True))
    return ((query, other, max(0.0, 1 - cosine)) for query, other, cosine in pairs)
