"""How well images survive an image tokenizer, in figures and in a picture.

Legend: N images, C channels, H W image height and width, K codebook size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

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
        ssim: structural similarity, averaged over the images; 1 is the same image.
        codebook_usage: share of the codes that the images use.
        perplexity: two to the entropy of the codes in bits: how many codes are used effectively.
    """

    psnr: float
    ssim: float
    codebook_usage: float
    perplexity: float


def psnrs(squared_errors: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratios in dB of mean squared errors (N,) of values in [-1, 1]."""
    ratios: np.ndarray = 10 * np.log10(4 / squared_errors.clip(min=1e-10))  # The range is 2 wide.
    return ratios


def ssims(images: Tensor, others: Tensor) -> Tensor:
    """(N,) structural similarities of images (N, C, H, W) with values in [-1, 1].

    Source: Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity,
    2004, equation 13, with its window of 11 pixels and its constants, a channel at a time.
    """
    offsets = torch.arange(11.0) - 5
    window = torch.exp(-offsets.square() / (2 * 1.5**2))
    window = (window / window.sum()).to(images)

    def mean(values: Tensor) -> Tensor:
        rows = F.conv2d(values.flatten(0, 1)[:, None], window.view(1, 1, 11, 1))
        return F.conv2d(rows, window.view(1, 1, 1, 11)).unflatten(0, values.shape[:2])

    # The formula is one of intensities: a negative mean would turn its sign.
    images, others = images.add(1).div(2), others.add(1).div(2)
    x, y = mean(images), mean(others)
    variance_x, variance_y = mean(images.square()) - x.square(), mean(others.square()) - y.square()
    covariance = mean(images * others) - x * y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * x * y + c1) * (2 * covariance + c2)
    similarity /= (x.square() + y.square() + c1) * (variance_x + variance_y + c2)
    return similarity.flatten(1).mean(dim=1)


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
