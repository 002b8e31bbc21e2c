"""Codes packed to the bits that their codebook needs: 9 for 512 codes, 14 for 16,384.

The bits of the codes follow one another, of an image's in raster order and of a sound's frame by
frame, each code's highest bit first, and the last byte is filled up with zeros.

Legend: B batch, h w code grid, b bits of a code; of a sound h is its frames, w its codebooks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa

from tokenizer_cache.settings import MAX_CODES


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """What a part of `tokens` has of an image: itself and its crops.

    Attributes:
        codes: (V, h, w) uint16, of the image itself first.
        boxes: of each the square in pixels: left, top, right, bottom.
    """

    codes: np.ndarray
    boxes: list[list[int]]


VIEW_COLUMNS = ("image_id", "box", "rows", "columns", "bits", "codes")
"""What `views_by_image` reads of `tokens`."""


def views_by_image(tokens: pa.Table) -> dict[str, Views]:
    """The views of each image of a part; its rows follow one another there."""
    found = {}
    for image_id, rows in groupby(tokens.to_pylist(), itemgetter("image_id")):
        own = list(rows)
        codes = np.stack([unpack(row) for row in own])  # (V, h, w)
        found[image_id] = Views(codes=codes, boxes=[row["box"] for row in own])
    return found


def bits_per_code(codebook_size: int) -> int:
    """The fewest bits that tell the codes of a codebook apart; at least 1, at most 16.

    Raises:
        ValueError: when a code of it may be no uint16.
    """
    if codebook_size > MAX_CODES:
        message = f"a codebook of {codebook_size} codes has more than {MAX_CODES}"
        raise ValueError(message)
    return max(1, (codebook_size - 1).bit_length())


def pack(codes: np.ndarray, bits: int) -> list[bytes]:
    """The codes of each image or sound of (B, h, w) uint16 in h * w * b bits.

    Raises:
        ValueError: when a code needs more bits.
    """
    if codes.size and int(codes.max()) >> bits:
        message = f"the code {codes.max()} needs more than {bits} bits"
        raise ValueError(message)
    octets = codes.astype(">u2").reshape(len(codes), -1, 1).view(np.uint8)  # (B, h * w, 2)
    each = np.unpackbits(octets, axis=-1)[..., -bits:]  # (B, h * w, b)
    packed = np.packbits(each.reshape(len(codes), -1), axis=-1)  # (B, bytes of an image)
    return [row.tobytes() for row in packed]


def unpack(row: Mapping[str, Any]) -> np.ndarray:
    """The codes of a row of `tokens`, (h, w) uint16."""
    return unpack_grid(row["codes"], row["bits"], row["rows"], row["columns"])


def unpack_grid(packed: bytes, bits: int, height: int, width: int) -> np.ndarray:
    """The codes that `pack` has packed of one image or sound, (h, w) uint16."""
    octets = np.frombuffer(packed, np.uint8)
    each = np.zeros((height * width, 16), np.uint8)
    each[:, -bits:] = np.unpackbits(octets, count=height * width * bits).reshape(-1, bits)
    codes = np.packbits(each, axis=-1).view(">u2")  # (h * w, 1)
    return codes.astype(np.uint16).reshape(height, width)
