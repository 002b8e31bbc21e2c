"""The order in which a grid's codes become a sequence, and back.

- `raster`: row by row.
- `coarse-first`: the codes of a coarse subgrid first (every fourth of every fourth row, say), then
  those that a finer one adds, so that a sequence that is cut short still covers the whole image.
- `scales`: every scale has codes of its own, as in VAR (Tian et al., Visual Autoregressive
  Modeling, arXiv:2404.02905, section 3.2); the tokenizer gives them one scale after another.

Legend: h w rows and columns of the code grid, G codes of an image.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Literal

import numpy as np

from tokenizer_cache.vocabulary import Grid, TokenizerDescription, TokenRange

_MAX_SCALES = 3
"""Of a 32x32 grid 8x8, 16x16 and 32x32."""


def read_in(
    order: Literal["raster", "coarse-first"], image: TokenizerDescription
) -> TokenizerDescription:
    """The tokenizer with its codes read in this order.

    Raises:
        ValueError: when its images have no grid in common that could be read coarse first.
    """
    if order == "raster":
        return image
    if image.grid is None:
        message = "images whose grids differ have no order that starts with a coarse grid"
        raise ValueError(message)
    return replace(image, order=order, scales=nested_scales(image.grid))


def nested_scales(grid: Grid) -> tuple[Grid, ...]:
    """Up to three grids from coarse to fine, each half of the next one, that end with `grid`."""
    scales = [grid]
    while len(scales) < _MAX_SCALES and not any(side % 2 for side in scales[0]):
        height, width = scales[0]
        scales.insert(0, (height // 2, width // 2))
    return tuple(scales)


def to_sequence(codes: np.ndarray, held: TokenRange) -> np.ndarray:
    """The codes of an image (h, w), or (G,) of several scales, as (G,) in reading order.

    Those of a sound (n, q) frame by frame, each codebook's with tokens of its own.
    """
    flat = codes.reshape(-1)  # (G,)
    if held.codebooks is not None:
        return (flat.reshape(-1, held.codebooks) + _first_tokens(held)).ravel()
    return flat if held.order != "coarse-first" else flat[_coarse_first(held.scales)]


def to_grid(sequence: np.ndarray, held: TokenRange) -> np.ndarray:
    """Sequences (..., G) as grids (..., h, w); of several scales unchanged; sounds (..., n, q)."""
    if held.modality == "audio":
        count = held.codebooks or 1
        return sequence.reshape(*sequence.shape[:-1], -1, count) - _first_tokens(held)
    if held.order == "scales" or held.grid is None:
        return sequence
    if held.order == "coarse-first":
        # An argsort of a permutation is its inverse.
        sequence = sequence[..., np.argsort(_coarse_first(held.scales))]
    return sequence.reshape(*sequence.shape[:-1], *held.grid)  # (..., h, w)


def cells(held: TokenRange) -> np.ndarray:
    """(G, 2) int64: row and column of each code in reading order; a scale's rows have their own."""
    if held.order == "scales":
        first = np.cumsum([0, *(rows for rows, _ in held.scales)])
        parts = [
            np.indices(scale).reshape(2, -1).T + np.array([start, 0])
            for scale, start in zip(held.scales, first[:-1].tolist(), strict=True)
        ]
        return np.concatenate(parts)
    if held.grid is None:
        return np.zeros((0, 2), np.int64)
    return np.stack([to_sequence(each, held) for each in np.indices(held.grid)], axis=1)


def _first_tokens(held: TokenRange) -> np.ndarray:
    """(q,) the token of code 0 of each codebook."""
    count = held.codebooks or 1
    return np.arange(count) * (held.size // count)


@cache
def _coarse_first(scales: tuple[Grid, ...]) -> np.ndarray:
    """(G,) places in raster order: each scale's that no coarser one has."""
    height, width = scales[-1]
    places = np.arange(height * width).reshape(height, width)
    order: list[int] = []
    seen: set[int] = set()
    for rows, columns in scales:
        new = [
            place
            for place in places[:: height // rows, :: width // columns].ravel().tolist()
            if place not in seen
        ]
        order += new
        seen.update(new)
    return np.array(order)
