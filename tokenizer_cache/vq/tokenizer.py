"""A trained image tokenizer: how it is saved and loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.device import best_device
from pipeline.engine.storage import commit_json, read_json
from pipeline.images import fit_square
from tokenizer_cache.settings import VQSettings
from tokenizer_cache.vq.description import SETTINGS, WEIGHTS
from tokenizer_cache.vq.model import VQModel, to_pixels, to_tensor


class VQTokenizer:
    """Images to codes and back, without gradients, on the best device.

    Legend: B batch, H W image height and width, h w code grid.
    """

    def __init__(self, settings: VQSettings, model: VQModel) -> None:
        self.settings = settings
        self._device = best_device()
        self._model = model.to(self._device).eval().requires_grad_(requires_grad=False)

    @property
    def num_pixels(self) -> int:
        """Pixels of an image, whatever its channels."""
        return self.settings.image_size**2

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """The codes of images (B, 3, H, W) float32 in [-1, 1], as (B, h, w) int64 on the CPU."""
        return self._model.encode(images.to(self._device)).cpu()

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """The images of codes (B, h, w), as (B, 3, H, W) float32 in [-1, 1] on the CPU."""
        return self._model.decode(codes.to(self._device)).cpu()

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """The codes of images (B, H, W, 3) uint8, as (B, h, w) uint16."""
        codes = self.encode(to_tensor(torch.from_numpy(pixels)))  # (B, h, w)
        return codes.numpy().astype(np.uint16)

    def squared_errors(self, pixels: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """How far each image (B, H, W, 3) uint8 is from what its codes (B, h, w) decode to.

        Returns:
            (B,) float32: the mean squared error a channel, of values in [-1, 1].
        """
        decoded = self.decode(torch.from_numpy(codes.astype(np.int64)))  # (B, 3, H, W)
        errors: Tensor = (decoded - to_tensor(torch.from_numpy(pixels))).square()
        return errors.mean(dim=(1, 2, 3)).numpy()  # (B,)

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """The codes of RGB images, each cut to the tokenizer's square, as (B, h, w) uint16."""
        return self.encode_pixels(
            np.stack([fit_square(image, self.settings.image_size) for image in images])
        )

    def decode_images(self, codes: np.ndarray) -> list[Image.Image]:
        """The RGB image of each grid of (B, h, w) codes."""
        images = self.decode(torch.from_numpy(codes.astype(np.int64)))  # (B, 3, H, W)
        return [Image.fromarray(pixels) for pixels in to_pixels(images).numpy()]


def save_vq(folder: Path, settings: VQSettings, model: VQModel) -> None:
    """Save weights and settings for `load_vq`."""
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    commit_json(folder / SETTINGS, settings.model_dump(mode="json"))


def load_vq(folder: Path) -> VQTokenizer:
    """The tokenizer that `save_vq` saved."""
    settings = VQSettings.model_validate(read_json(folder / SETTINGS))
    model = VQModel(settings)
    model.load_state_dict(load_file(folder / WEIGHTS))
    return VQTokenizer(settings, model)
