"""What a picture looks like, in 64 bytes that are near for resized and recompressed copies.

The 64 bits of ImageHash's pHash are signs of the lowest frequencies of a small grey copy. Here the
frequencies themselves are kept, eight bits each: a crop or a slight rotation turns many of the
signs, and changes the numbers little. Each is multiplied by its frequency, since the amplitudes in
pictures fall with it (Field, Relations between the statistics of natural images and the response
properties of cortical cells, 1987): else the few lowest ones decide alone.

Legend: N pictures, D = 64 frequencies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

_SIDE = 32
"""Side of the small copy, in pixels, as of ImageHash's pHash."""
_KEPT = 8
"""Frequencies of each direction that are kept, as of ImageHash's pHash."""
MIRRORED = _KEPT * _KEPT // 2
"""Frequencies of which a mirror changes the sign: the last ones."""
_TRIMMED_AT = 128
"""Least side at which borders are looked for, in pixels: finding them in all pixels takes longer
than the rest together."""
_PLAIN = 8.0
"""A line is a border's where its grey levels vary less (standard deviation, of 255): above what
JPEG at quality 30 leaves of a plain border, below a line that two of 128 pixels of ink cross."""
_LEAST_SHARE = 0.25
"""A picture that would lose more of a side than what this leaves is not trimmed."""
_BLANK = 1.0
"""A small copy varies less (standard deviation, of 255): there is nothing to compare."""


def pixel_hash(image: Image.Image) -> str:
    """SHA-256 of an RGB image's size and pixels as 64 hexadecimal digits."""
    hashed = hashlib.sha256(f"{image.width}x{image.height}:".encode())
    hashed.update(image.tobytes())
    return hashed.hexdigest()


def perceptual_hash(grey: Image.Image) -> bytes | None:
    """The hash of a grey picture (mode `L`); None for a blank one.

    A plain border is cut off first, so that a picture and its framed copy have equal hashes.

    Returns:
        D int8, the largest of them 127 or -127. In a mirror the last `MIRRORED`, which are odd
        across, change their sign.
    """
    trimmed = _trim(grey.reduce(max(1, min(grey.size) // _TRIMMED_AT)))
    small = np.asarray(trimmed.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), np.float32)
    if small.std() < _BLANK:
        return None
    kept = (_BASIS @ small @ _BASIS.T * _FREQUENCY).ravel()[_IN_ORDER]  # (D,)
    return np.rint(kept * (127 / np.abs(kept).max())).astype(np.int8).tobytes()


def perceptual_vectors(hashes: Sequence[bytes]) -> np.ndarray:
    """Unit vectors: (N, D) float32. One minus their dot product is the distance of two pictures."""
    rows = np.frombuffer(b"".join(hashes), np.int8).reshape(len(hashes), _KEPT * _KEPT)
    vectors = rows.astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _cosines() -> np.ndarray:
    """The first rows of the discrete cosine transform (DCT-II): (_KEPT, _SIDE) float32."""
    frequency, place = np.mgrid[:_KEPT, :_SIDE]
    rows: np.ndarray = np.cos(np.pi * frequency * (2 * place + 1) / (2 * _SIDE))
    return rows.astype(np.float32)


_BASIS = _cosines()
_DOWN, _ACROSS = np.mgrid[:_KEPT, :_KEPT]
_FREQUENCY = np.hypot(_DOWN, _ACROSS).astype(np.float32)
_IN_ORDER = np.lexsort((_DOWN.ravel(), _ACROSS.ravel(), _ACROSS.ravel() % 2))
"""Places of the frequencies, the even ones across before the odd ones; the mean counts nothing."""


def _trim(grey: Image.Image) -> Image.Image:
    """The picture without its plain borders, of which there may be several around one another."""
    pixels = np.asarray(grey, np.float32)
    top, bottom, left, right = 0, grey.height, 0, grey.width
    while True:
        before = (top, bottom, left, right)
        rows = np.flatnonzero(pixels[top:bottom, left:right].std(axis=1) >= _PLAIN)
        if len(rows):
            top, bottom = top + int(rows[0]), top + int(rows[-1]) + 1
        columns = np.flatnonzero(pixels[top:bottom, left:right].std(axis=0) >= _PLAIN)
        if len(columns):
            left, right = left + int(columns[0]), left + int(columns[-1]) + 1
        if (top, bottom, left, right) == before:
            break
    is_little = bottom - top < _LEAST_SHARE * grey.height or right - left < (
        _LEAST_SHARE * grey.width
    )
    return grey if is_little else grey.crop((left, top, right, bottom))
