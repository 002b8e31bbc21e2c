"""Scores of a picture by itself: its size, how much there is to see, and how it looks.

Plain statistics of the pixels, without a model: they are cheap, the same everywhere, and each can
be fooled in ways that its description names. All but size and entropy are of the picture shrunk to
`_MAX_SIDE`, so that they compare between pictures of different sizes.

Legend: H W height and width in pixels, R C rows and columns of tiles, n pixels of a tile.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

_MAX_SIDE = 512
"""Longer side that most scores are measured at, in pixels: a megapixel takes a quarter as long."""

_TILE = (8, 32)
"""Height and width of what looks like text or does not, in pixels: half a line, some letters."""
_MIN_TEXT_WIDTH = 128
_MIN_CONTRAST = 64
_EDGE = 32
"""Smallest step between neighbouring pixels that begins or ends a stroke, of 255."""
_MIN_STROKES = 2.0
_MIN_TWO_TONE = 0.7
"""With 2 strokes a row and 0.7 a page set in 12 to 32 px has a text share of 0.22 to 0.39, 99 of
100 OpenMoji drawings at 256 px one below 0.01, coloured noise and shapes 0. With 1.5 and 0.6 the
drawings come to 0.02 and a photograph to 0.03."""

_BORDER_TOLERANCE = 16
"""How far a border's pixels may be from its colour, of 255: JPEG at quality 30 stays within it."""


class PictureScores(NamedTuple):
    """The columns that a picture's pixels alone decide."""

    short_side: float
    """Shorter side in pixels."""
    aspect_ratio: float
    """Longer side over shorter side, 1 or more."""
    entropy: float
    """Shannon entropy of the 256 grey levels in bits: 0 for a blank picture, 8 at most."""
    sharpness: float
    """Variance of the Laplacian of the grey levels: the lower, the more blurred. Noise is sharp."""
    colourfulness: float
    """Hasler and Süsstrunk's: 0 for grey, about 15 slightly, 45 averagely, 109 extremely so."""
    text_share: float
    """Share of the picture with rows of two-tone strokes, as printed text has; lattices have them,
    too. Letters too small, too large or too faint are missed; 0 where it is under 128 px wide."""
    border: float
    """Share of the picture in plain bands along its edges: a frame, a letterbox, a page's margin.
    1 for a blank picture."""


def picture_scores(image: Image.Image) -> PictureScores:
    """Scores of an RGB image of any size."""
    width, height = image.size
    shrunk = _shrink(image)
    grey = np.asarray(shrunk.convert("L"), dtype=np.int16)
    return PictureScores(
        short_side=float(min(width, height)),
        aspect_ratio=max(width, height) / min(width, height),
        entropy=_entropy(image),
        sharpness=_sharpness(grey),
        colourfulness=_colourfulness(shrunk),
        text_share=_text_share(grey),
        border=_border(grey),
    )


def _shrink(image: Image.Image) -> Image.Image:
    """The image with each k x k pixels averaged to one, k so that it is `_MAX_SIDE` at most."""
    factor = -(-max(image.size) // _MAX_SIDE)
    return image.reduce(factor) if factor > 1 else image


def _entropy(image: Image.Image) -> float:
    counts = np.asarray(image.convert("L").histogram(), dtype=np.float64)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def _sharpness(grey: np.ndarray) -> float:
    """Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy (ICPR 2000), section 3.

    Args:
        grey: (H, W) int16 in [0, 255].
    """
    if min(grey.shape) < 3:
        return 0.0
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * grey[1:-1, 1:-1]).var())


def _colourfulness(image: Image.Image) -> float:
    """Hasler and Süsstrunk, Measuring colourfulness in natural images (2003), section 7."""
    red, green, blue = (np.asarray(band, dtype=np.float32) for band in image.split())  # (H, W)
    opponents = (red - green, (red + green) / 2 - blue)
    spread = np.hypot(*(each.std() for each in opponents))
    return float(spread + 0.3 * np.hypot(*(each.mean() for each in opponents)))


def _text_share(grey: np.ndarray) -> float:
    """The share of tiles that look like text, beside another one in the same row of tiles.

    Such a tile has strong contrast, pixels that are nearly all as dark or as light as they get, and
    strokes: on a row of it, steps both up and down, which change from row to row. Ours.

    Args:
        grey: (H, W) int16 in [0, 255].
    """
    if grey.shape[1] < _MIN_TEXT_WIDTH or grey.shape[0] < _TILE[0]:
        return 0.0
    steps = np.diff(grey, axis=1, append=grey[:, -1:])  # (H, W)
    rises, falls = (_tiles(_begins(each)).sum(axis=-1) for each in (steps > _EDGE, steps < -_EDGE))
    strokes = np.minimum(rises, falls) / _TILE[0]  # (R, C)
    pixels = _tiles(grey)  # (R, C, n)
    darkest, lightest = pixels.min(-1, keepdims=True), pixels.max(-1, keepdims=True)
    quarter = (lightest - darkest) // 4
    two_tone = ((pixels - darkest < quarter) | (lightest - pixels < quarter)).mean(-1)
    changes = _tiles(np.abs(np.diff(grey, axis=0, append=grey[-1:])) > _EDGE).mean(-1)
    looks_like = (
        (lightest - darkest >= _MIN_CONTRAST)[..., 0]
        & (two_tone >= _MIN_TWO_TONE)
        & (strokes >= _MIN_STROKES)
        & (changes >= 0.05)
    )
    beside = np.pad(looks_like, ((0, 0), (1, 1)))
    return float((looks_like & (beside[:, 2:] | beside[:, :-2])).mean())


def _begins(mask: np.ndarray) -> np.ndarray:
    """Where a run of true values begins in a row."""
    begins = mask.copy()
    begins[:, 1:] &= ~mask[:, :-1]
    return begins


def _tiles(values: np.ndarray) -> np.ndarray:
    """The whole tiles of an (H, W) array: (R, C, n)."""
    height, width = _TILE
    rows, columns = values.shape[0] // height, values.shape[1] // width
    cut = values[: rows * height, : columns * width]
    tiles = cut.reshape(rows, height, columns, width).swapaxes(1, 2)  # (R, C, height, width)
    return tiles.reshape(rows, columns, height * width)  # (R, C, n)


def _border(grey: np.ndarray) -> float:
    """One minus the share of what is left when plain bands are cut off on all four sides.

    Args:
        grey: (H, W) int16 in [0, 255].
    """
    height, width = grey.shape
    rows = _plain_lines(grey) + _plain_lines(grey[::-1])
    columns = _plain_lines(grey.T) + _plain_lines(grey.T[::-1])
    return 1 - max(0, height - rows) * max(0, width - columns) / (height * width)


def _plain_lines(lines: np.ndarray) -> int:
    """How many lines from the first one on have its one grey, all but 1 % of their pixels."""
    tone = int(np.median(lines[0]))
    plain = (np.abs(lines - tone) <= _BORDER_TOLERANCE).mean(axis=1) >= 0.99
    return len(plain) if plain.all() else int(plain.argmin())
