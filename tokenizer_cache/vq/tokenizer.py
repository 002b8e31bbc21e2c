"""An image tokenizer that is ready for use: how it is saved and loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.device import best_device, keeping_random_state
from pipeline.engine.storage import commit_json
from tokenizer_cache.settings import PublishedVQ, VQSettings
from tokenizer_cache.vq.description import SETTINGS, WEIGHTS, read_settings
from tokenizer_cache.vq.model import VQModel, to_pixels
from tokenizer_cache.vq.pixels import Pixels, SquarePixels, load_pixels


class Codec(Protocol):
    """A network between images and codes."""

    can_decode: bool

    def encode(self, images: Tensor) -> Tensor:
        """The codes of images (B, 3, H, W) float32, as (B, h, w) int64."""

    def decode(self, codes: Tensor) -> Tensor:
        """The images of codes (B, h, w), as (B, 3, H, W) float32."""

    def to(self, device: torch.device) -> Self:
        """The network on a device."""

    def eval(self) -> Self:
        """The network as it is used."""

    def requires_grad_(self, requires_grad: bool) -> Self:
        """The network with or without gradients."""


class VQTokenizer:
    """Images to codes and back, without gradients, on the best device.

    Legend: B batch, H W image height and width, h w code grid.
    """

    def __init__(self, codec: Codec, pixels: Pixels, settings: VQSettings | PublishedVQ) -> None:
        self._device = best_device()
        self._codec = codec.to(self._device).eval().requires_grad_(requires_grad=False)
        self._pixels = pixels
        self.image_size = settings.image_size
        self.codebook_size = settings.codebook_size

    @property
    def num_pixels(self) -> int:
        """Pixels of an image, whatever its channels."""
        return self.image_size**2

    @property
    def can_decode(self) -> bool:
        """Whether codes can be turned into images again."""
        return self._codec.can_decode

    @torch.inference_mode()
    def encode(self, values: Tensor) -> Tensor:
        """The codes of what the network takes, (B, 3, H, W), as (B, h, w) int64 on the CPU."""
        return self._codec.encode(values.to(self._device)).cpu()

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """What the network gives for codes (B, h, w): (B, 3, H, W) float32 on the CPU."""
        return self._codec.decode(codes.to(self._device)).cpu()

    def prepare(self, image: Image.Image) -> np.ndarray:
        """An RGB image as `encode_pixels` takes it, stacked with others."""
        return self._pixels.prepare(image)

    def encode_pixels(self, prepared: np.ndarray) -> np.ndarray:
        """The codes of prepared images (B, …), as (B, h, w) uint16."""
        codes = self.encode(self._pixels.to_values(prepared))  # (B, h, w)
        return codes.numpy().astype(np.uint16)

    def squared_errors(self, prepared: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """How far each prepared image (B, …) is from what its codes (B, h, w) decode to.

        Returns:
            (B,) float32: the mean squared error a channel, of values in [-1, 1].
        """
        wanted = self._pixels.to_range(self._pixels.to_values(prepared))  # (B, 3, H, W)
        return (self._decoded(codes) - wanted).square().mean(dim=(1, 2, 3)).numpy()  # (B,)

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """The codes of RGB images, each cut to the tokenizer's square, as (B, h, w) uint16."""
        return self.encode_pixels(np.stack([self.prepare(image) for image in images]))

    def decode_images(self, codes: np.ndarray) -> list[Image.Image]:
        """The RGB image of each grid of (B, h, w) codes."""
        return [Image.fromarray(pixels) for pixels in to_pixels(self._decoded(codes)).numpy()]

    def show(self, prepared: np.ndarray) -> np.ndarray:
        """Prepared images (B, …) as (B, H, W, 3) uint8."""
        return to_pixels(self._pixels.to_range(self._pixels.to_values(prepared))).numpy()

    def _decoded(self, codes: np.ndarray) -> Tensor:
        """(B, 3, H, W) float32 in [-1, 1] of (B, h, w) codes."""
        values = self.decode(torch.from_numpy(codes.astype(np.int64)))
        return self._pixels.to_range(values).clamp(-1, 1)


def save_vq(folder: Path, settings: VQSettings, model: VQModel) -> None:
    """Save weights and settings for `load_vq`."""
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    commit_json(folder / SETTINGS, settings.model_dump(mode="json"))


@keeping_random_state()
def load_vq(folder: Path) -> VQTokenizer:
    """The tokenizer that a fit of `vq` saved."""
    settings = read_settings(folder)
    if isinstance(settings, VQSettings):
        model = VQModel(settings)
        model.load_state_dict(load_file(folder / WEIGHTS))
        pixels = SquarePixels(settings.image_size)
        return VQTokenizer(model, pixels, settings)
    from tokenizer_cache.vq.published import load_codec

    return VQTokenizer(load_codec(settings, folder), load_pixels(settings, folder), settings)
