"""How each image tokenizer wants its images: from an image to what the network takes, and back.

Legend: B batch, H W image height and width.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.images import fit_square
from tokenizer_cache.settings import PublishedVQ
from tokenizer_cache.vq.model import to_tensor


class Pixels(Protocol):
    """The preprocessing of an image tokenizer."""

    def prepare(self, image: Image.Image) -> np.ndarray:
        """An RGB image cut to size; arrays of several images have one shape."""

    def to_values(self, prepared: np.ndarray) -> Tensor:
        """What the network takes of prepared images (B, …), as (B, 3, H, W) float32."""

    def to_range(self, values: Tensor) -> Tensor:
        """Such values, or what the network decodes to, on the scale from -1 to 1."""


Cut = Callable[[Image.Image], Image.Image]


class SquarePixels:
    """The shorter side scaled, the middle cut out, values from -1 to 1."""

    def __init__(self, size: int) -> None:
        self._size = size

    def prepare(self, image: Image.Image) -> np.ndarray:
        """(H, W, 3) uint8."""
        return fit_square(image, self._size)

    def to_values(self, prepared: np.ndarray) -> Tensor:
        """(B, 3, H, W) float32 of (B, H, W, 3) uint8."""
        return to_tensor(torch.from_numpy(prepared))

    def to_range(self, values: Tensor) -> Tensor:
        """As they are."""
        return values


class LlamaGenPixels:
    """LlamaGen's own cut: halved by boxes while it is twice as large, then scaled by cubics.

    Source: `center_crop_arr` of ADM (Dhariwal and Nichol, arXiv:2105.05233), which LlamaGen took.
    """

    def __init__(self, size: int) -> None:
        self._size = size

    def prepare(self, image: Image.Image) -> np.ndarray:
        """(H, W, 3) uint8."""
        while min(image.size) >= 2 * self._size:
            image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
        scale = self._size / min(image.size)
        scaled = (round(image.width * scale), round(image.height * scale))
        pixels = np.asarray(image.resize(scaled, Image.Resampling.BICUBIC))
        top, left = ((side - self._size) // 2 for side in pixels.shape[:2])
        return pixels[top : top + self._size, left : left + self._size]

    def to_values(self, prepared: np.ndarray) -> Tensor:
        """(B, 3, H, W) float32 of (B, H, W, 3) uint8, rounded as torchvision's ToTensor does."""
        values = torch.from_numpy(prepared).permute(0, 3, 1, 2).float()  # (B, 3, H, W)
        return values.div(255).sub(0.5).div(0.5)

    def to_range(self, values: Tensor) -> Tensor:
        """As they are."""
        return values


class ProcessorPixels:
    """What an image processor of transformers makes of an image, after a cut of ours."""

    def __init__(self, processor: Any, cut: Cut | None = None) -> None:  # noqa: ANN401
        self._processor = processor
        self._cut = cut
        self._mean, self._std = (
            torch.tensor(each).view(3, 1, 1) for each in (processor.image_mean, processor.image_std)
        )

    def prepare(self, image: Image.Image) -> np.ndarray:
        """(3, H, W) float32."""
        if self._cut is not None:
            image = self._cut(image)
        values: np.ndarray = self._processor(image, return_tensors="np")["pixel_values"][0]
        return values

    def to_values(self, prepared: np.ndarray) -> Tensor:
        """As they are."""
        return torch.from_numpy(prepared)

    def to_range(self, values: Tensor) -> Tensor:
        """The processor's scaling and normalisation undone."""
        pixels = (values * self._std + self._mean) / self._processor.rescale_factor  # 0 to 255
        return pixels.div(127.5).sub(1)


def middle_square(image: Image.Image) -> Image.Image:
    """The largest square in an image's middle: the first of `tokenizer_cache.encode.squares`."""
    side = min(image.size)
    left, top = ((whole - side + 1) // 2 for whole in image.size)
    return image.crop((left, top, left + side, top + side))


def load_processor(kind: str, place: str, **settings: Any) -> Any:  # noqa: ANN401 - transformers'
    """The image processor of a model in transformers' format.

    The variants on PIL are taken: they are what the models were trained with.

    Args:
        kind: `janus`, `chameleon` or `emu3`.
        place: a folder or a name on the hub.
        settings: what replaces the processor's own, and the `revision` on the hub.
    """
    from transformers import (
        ChameleonImageProcessorPil,
        Emu3ImageProcessor,
        JanusImageProcessorPil,
    )

    processors: dict[str, Any] = {
        "janus": JanusImageProcessorPil,
        "chameleon": ChameleonImageProcessorPil,
        "emu3": Emu3ImageProcessor,
    }
    return processors[kind].from_pretrained(place, **settings)


def own_size(kind: str, processor: Any) -> int:  # noqa: ANN401 - transformers' own
    """The side in pixels that a processor brings images to; Emu3's smallest, as a square."""
    if kind == "emu3":
        return int(processor.min_pixels**0.5)
    size = processor.crop_size if kind == "chameleon" else processor.size
    return int(size["height"])


def load_pixels(settings: PublishedVQ, folder: Path) -> Pixels:
    """The preprocessing of the published tokenizer in `folder`, for its image size."""
    size, kind = settings.image_size, settings.kind
    side = {"height": size, "width": size}
    match kind:
        case "llamagen":
            return LlamaGenPixels(size)
        case "janus":
            # "For visual generation data, the short side is resized to 384, and the long side is
            # cropped to 384" (arXiv:2410.13848, section 4.1; arXiv:2501.17811, section 3.1).
            processor = load_processor(kind, str(folder), size=side)
            return ProcessorPixels(processor, middle_square if settings.cuts_square else None)
        case "chameleon":
            shortest = {"shortest_edge": size}
            return ProcessorPixels(load_processor(kind, str(folder), size=shortest, crop_size=side))
        case "emu3":
            area = {"min_pixels": size * size, "max_pixels": size * size}
            # Emu3 keeps an image's shape, and a corpus has one grid: the square is cut out before.
            return ProcessorPixels(
                load_processor(kind, str(folder), **area),
                lambda image: Image.fromarray(fit_square(image, size)),
            )
