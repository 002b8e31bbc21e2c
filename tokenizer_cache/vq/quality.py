"""How well images survive an image tokenizer, in figures and in a picture.

Legend: N images, H W image height and width, K codebook size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.engine.stage import FitInputs
from pipeline.engine.tables import connect
from pipeline.images import decode
from pipeline.references import image_bytes

METRICS = "metrics.json"
RECONSTRUCTIONS = "reconstructions.png"

MAX_HELD_OUT = 512
"""Ours: the PSNR of 512 images is known to 0.2 dB, and measuring them takes seconds."""
_SHEET_COLUMNS, SHEET_SIZE = 12, 48
_IMAGES_PER_FETCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How well images survive the tokenizer.

    Attributes:
        psnr: peak signal-to-noise ratio in dB, averaged over the images.
        codebook_usage: share of the codes that the images use.
        perplexity: two to the entropy of the codes in bits: how many codes are used effectively.
    """

    psnr: float
    codebook_usage: float
    perplexity: float


def psnrs(squared_errors: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratios in dB of mean squared errors (N,) of values in [-1, 1]."""
    ratios: np.ndarray = 10 * np.log10(4 / squared_errors.clip(min=1e-10))  # The range is 2 wide.
    return ratios


def use_of(codes: np.ndarray, codebook_size: int) -> tuple[float, float]:
    """The share of the codebook that some codes use, and their perplexity."""
    counts = np.bincount(codes.ravel(), minlength=codebook_size)  # (K,)
    shares = counts[counts > 0] / counts.sum()
    return len(shares) / len(counts), math.exp(-(shares * np.log(shares)).sum())


def load_images(
    inputs: FitInputs, split: str, prepare: Callable[[Image.Image], np.ndarray], limit: int
) -> np.ndarray:
    """(N, …): the images of a split, each once and prepared, at most `limit`.

    An image id is a hash, so the lowest ids are a random choice that is the same every time.
    """
    rows = connect(inputs.tables).execute(
        """
        SELECT DISTINCT ON (image_id) image_id, image, image_ref FROM records
        WHERE split = $split AND image_id IS NOT NULL ORDER BY image_id LIMIT $limit
        """,
        {"split": split, "limit": limit},
    )
    images: list[np.ndarray] = []
    columns = ("image_id", "image", "image_ref")
    while batch := rows.fetchmany(_IMAGES_PER_FETCH):
        contents = image_bytes([dict(zip(columns, row, strict=True)) for row in batch])
        images.append(np.stack([prepare(decode(content)) for content in contents]))
    return np.concatenate(images) if images else np.empty(0, np.uint8)


def contact_sheet(shown: np.ndarray, again: np.ndarray) -> np.ndarray:
    """Rows of images (N, H, W, 3) uint8, each above a row of their reconstructions."""
    shown, again = shown[:SHEET_SIZE], again[:SHEET_SIZE]
    rows = []
    for start in range(0, len(shown), _SHEET_COLUMNS):
        for kind in (shown, again):
            row = np.full((_SHEET_COLUMNS, *shown.shape[1:]), 255, np.uint8)
            part = kind[start : start + _SHEET_COLUMNS]
            row[: len(part)] = part
            rows.append(np.concatenate(list(row), axis=1))  # (H, columns * W, 3)
    return np.concatenate(rows)
