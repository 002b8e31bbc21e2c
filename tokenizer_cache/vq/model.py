"""The network: a convolutional encoder and decoder around a vector-quantised codebook.

Legend: B batch, H W image height and width, h w code grid, D codebook dimensions.

Convolutions run at a quarter of the image's resolution or less: the first layer only rearranges
4x4 pixels into channels (pixel unshuffle, Shi et al., arXiv:1609.05158), so that a CPU trains it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ, LFQ, VectorQuantize

from tokenizer_cache.settings import VQSettings

_PATCH = 4
"""Side in pixels of the square that becomes the channels of one position."""


class VQModel(nn.Module):
    """Image to codes to image.

    With `vq` the codebook follows the encoder by moving averages (van den Oord et al., Neural
    Discrete Representation Learning, arXiv:1711.00937, appendix A.1), starts from k-means of a
    batch, and replaces codes that are hardly used by vectors of the batch (Zeghidour et al.,
    SoundStream, arXiv:2107.03312, section III.C). Codes and encodings are L2-normalised (Yu et al.,
    ViT-VQGAN, arXiv:2110.04627, section 3.2).
    """

    can_decode = True

    def __init__(self, settings: VQSettings) -> None:
        super().__init__()
        num_halvings = (settings.stride // _PATCH).bit_length() - 1
        widths = [settings.width >> halving for halving in range(num_halvings, -1, -1)]
        pixels = 3 * _PATCH * _PATCH

        def blocks() -> list[nn.Module]:
            return [_Residual(settings.width) for _ in range(settings.depth)]

        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(_PATCH),
            nn.Conv2d(pixels, widths[0], 3, padding=1),
            *(layer for width in widths[:-1] for layer in (_Residual(width), *_halve(width))),
            *blocks(),
            nn.GroupNorm(1, settings.width),
            nn.Conv2d(settings.width, settings.codebook_dim, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(settings.codebook_dim, settings.width, 3, padding=1),
            *blocks(),
            *(layer for width in widths[-2::-1] for layer in (*_double(width), _Residual(width))),
            nn.GroupNorm(1, widths[0]),
            nn.Conv2d(widths[0], pixels, 3, padding=1),
            nn.PixelShuffle(_PATCH),
        )
        self.quantizer = _quantizer(settings)
        self._has_codebook = settings.quantizer == "vq"

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Through the codebook and back.

        Args:
            images: (B, 3, H, W) float32 in [-1, 1].

        Returns:
            Reconstructions (B, 3, H, W), codes (B, h, w) int64 and the quantizer's weighted loss:
            commitment of `vq`, entropy of `lfq`, none of `fsq`.
        """
        quantized, codes, *losses = self.quantizer(self.encoder(images))
        loss = losses[0].sum() if losses else images.new_zeros(())
        return self.decoder(quantized), codes.long(), loss

    def autoencode(self, images: Tensor) -> Tensor:
        """Past the codebook and back: what the warm-up trains, (B, 3, H, W)."""
        return self.decoder(F.normalize(self.encoder(images), dim=1))

    @property
    def last_weight(self) -> nn.Parameter:
        """The weight of the decoder's last convolution."""
        return self.decoder[-2].get_parameter("weight")

    def encode(self, images: Tensor) -> Tensor:
        """The codes of images (B, 3, H, W) float32 in [-1, 1], as (B, h, w) int64."""
        codes: Tensor = self.quantizer(self.encoder(images))[1]
        return codes.long()

    def decode(self, codes: Tensor) -> Tensor:
        """The images of codes (B, h, w), as (B, 3, H, W) float32 in [-1, 1]."""
        if self._has_codebook:
            quantized = self.quantizer.get_codes_from_indices(codes)  # (B, D, h, w)
        else:
            quantized = self.quantizer.indices_to_codes(codes)  # (B, D, h, w)
        images: Tensor = self.decoder(quantized)
        return images.clamp(-1, 1)


def to_tensor(pixels: Tensor) -> Tensor:
    """Images (B, H, W, 3) uint8 as (B, 3, H, W) float32 in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)  # (B, 3, H, W)


def to_pixels(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] as (B, H, W, 3) uint8."""
    return images.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _quantizer(settings: VQSettings) -> Any:  # noqa: ANN401 - three classes without types
    dim, codebook_size = settings.codebook_dim, settings.codebook_size
    match settings.quantizer:
        case "fsq":
            return FSQ(settings.fsq_levels, dim=dim)
        case "lfq":
            return LFQ(dim=dim, codebook_size=codebook_size)
    codes_per_batch = settings.batch_size * (settings.image_size // settings.stride) ** 2
    return VectorQuantize(
        dim,
        codebook_size,
        decay=settings.ema_decay,
        commitment_weight=settings.commitment_weight,
        threshold_ema_dead_code=settings.dead_code_share * codes_per_batch / codebook_size,
        kmeans_init=True,
        use_cosine_sim=True,
        rotation_trick=settings.gradient == "rotation-trick",
        accept_image_fmap=True,
    )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Conv2d(width, width, 3, padding=1, bias=False)
        # A block that starts as the identity lets the first steps train the layers around it.
        nn.init.zeros_(last.weight)
        self.block = nn.Sequential(
            nn.GroupNorm(1, width), nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), last
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.block(x))


def _halve(width: int) -> tuple[nn.Module, nn.Module]:
    """From `width` channels to `2 * width` at half the resolution."""
    return nn.PixelUnshuffle(2), nn.Conv2d(4 * width, 2 * width, 1)


def _double(width: int) -> tuple[nn.Module, nn.Module]:
    """From `2 * width` channels to `width` at twice the resolution."""
    return nn.Conv2d(2 * width, 4 * width, 1), nn.PixelShuffle(2)
