"""Scores of a picture by itself: how large it is and how much there is to see."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image


class PictureScores(NamedTuple):
    """Columns of the pictures table."""

    short_side: float
    """Shorter side in pixels."""
    aspect_ratio: float
    """Longer side over shorter side."""
    entropy: float
    """Shannon entropy of the 256 grey levels in bits: 0 for a blank picture, 8 at most."""


def picture_scores(image: Image.Image) -> PictureScores:
    """Scores of an RGB image."""
    counts = np.asarray(image.convert("L").histogram(), dtype=np.float64)
    shares = counts[counts > 0] / counts.sum()
    return PictureScores(
        short_side=float(min(image.size)),
        aspect_ratio=max(image.size) / min(image.size),
        entropy=float(-(shares * np.log2(shares)).sum()) + 0.0,
    )
