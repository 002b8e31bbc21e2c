"""From encoded image to pixels, with limits: source data is hostile."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

MAX_PIXELS = 100_000_000
"""Ours: a 100-megapixel photograph passes, a decompression bomb does not."""


class ImageError(ValueError):
    """An image that will not be used; `reason` is a stable reject code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def decode(content: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The first frame as an RGB image; transparency is laid on white.

    Raises:
        ImageError: when the bytes are no image, are damaged, or hold more than `max_pixels`.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > max_pixels:
                message = f"{image.width} x {image.height} is more than {max_pixels} pixels"
                raise ImageError("decode-too-many-pixels", message)
            if image.mode == "RGB":
                return image.copy()
            layered = image.convert("RGBA")
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen unrelated types on damaged bytes.
        raise ImageError("decode-failed", f"{type(error).__name__}: {error}") from error
    ground = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(ground, layered).convert("RGB")


def fit_square(image: Image.Image, size: int) -> np.ndarray:
    """The image with its shorter side scaled to `size` and its middle cut out.

    Returns:
        (size, size, 3) uint8, RGB.
    """
    if image.size != (size, size):
        scale = size / min(image.size)
        scaled = (max(size, round(image.width * scale)), max(size, round(image.height * scale)))
        image = image.resize(scaled, Image.Resampling.BICUBIC)
        left, top = (image.width - size) // 2, (image.height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image)
