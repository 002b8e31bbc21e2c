"""Published image tokenizers: transformers' own networks behind our `encode` and `decode`.

Nothing is computed here that transformers computes. LlamaGen's VQ-16 has Janus's network.

Legend: B batch, H W image height and width, h w code grid, K codebook size, D its dimensions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call
from transformers import (
    ChameleonVQVAE,
    ChameleonVQVAEConfig,
    Emu3VQVAE,
    Emu3VQVAEConfig,
    JanusVQVAE,
    JanusVQVAEConfig,
    PreTrainedConfig,
)

from pipeline.errors import UserError
from tokenizer_cache.settings import PublishedVQ
from tokenizer_cache.vq.description import WEIGHTS

if TYPE_CHECKING:
    from tokenizer_cache.vq.tokenizer import Codec

CONFIGS: dict[str, type[PreTrainedConfig]] = {
    "janus": JanusVQVAEConfig,
    "llamagen": JanusVQVAEConfig,
    "chameleon": ChameleonVQVAEConfig,
    "emu3": Emu3VQVAEConfig,
}


class JanusCodec(nn.Module):
    """Janus's and LlamaGen's tokenizer."""

    can_decode = True

    def __init__(self, config: JanusVQVAEConfig, image_size: int) -> None:
        super().__init__()
        self._side = image_size // stride_of(config)
        config.num_patches = self._side  # what its `decode` takes for the grid
        self.model = JanusVQVAE(config)

    def encode(self, images: Tensor) -> Tensor:
        """The codes of images (B, 3, H, W), as (B, h, w) int64.

        Both models were trained with codes and encodings of unit length (LlamaGen's
        `codebook_l2_norm`). transformers' `decode` normalises the codebook; its `encode` does not,
        and gives other codes for a codebook whose vectors differ in length. Its quantizer runs
        here with the normalised codebook; the encodings' length moves no nearest code then.
        """
        quantizer = self.model.quantize
        hidden = self.model.quant_conv(self.model.encoder(images))  # (B, D, h, w)
        codebook = F.normalize(quantizer.embedding.weight, dim=-1)  # (K, D)
        codes = functional_call(quantizer, {"embedding.weight": codebook}, (hidden,))[2]
        return codes.view(len(images), self._side, self._side)  # (B, h, w)

    def decode(self, codes: Tensor) -> Tensor:
        """The images of codes (B, h, w), as (B, 3, H, W)."""
        images: Tensor = self.model.decode(codes.flatten(1))  # type: ignore[arg-type] # any integer
        return images


class ChameleonCodec(nn.Module):
    """Chameleon's tokenizer; transformers has no decoder of it."""

    can_decode = False

    def __init__(self, config: ChameleonVQVAEConfig, image_size: int) -> None:
        super().__init__()
        self._side = image_size // stride_of(config)
        self.model = ChameleonVQVAE(config)

    def encode(self, images: Tensor) -> Tensor:
        """The codes of images (B, 3, H, W), as (B, h, w) int64."""
        codes: Tensor = self.model.encode(images).image_tokens
        return codes.view(len(images), self._side, self._side)  # (B, h, w)

    def decode(self, _codes: Tensor) -> Tensor:
        """Always an error."""
        raise UserError(
            "Chameleon's codes cannot be turned into pictures: transformers has its encoder alone",
            "Take another image tokenizer (image_tokenizer.kind) to draw pictures.",
        )


class Emu3Codec(nn.Module):
    """Emu3's tokenizer, for still images."""

    can_decode = True

    def __init__(self, config: Emu3VQVAEConfig, image_size: int) -> None:
        super().__init__()
        self._size = torch.tensor([image_size, image_size])
        self.model = Emu3VQVAE(config)

    def encode(self, images: Tensor) -> Tensor:
        """The codes of images (B, 3, H, W), as (B, h, w) int64."""
        codes = self.model.encode(images, self._size.expand(len(images), 2)).image_tokens
        return torch.stack(codes)  # (B, h, w)

    def decode(self, codes: Tensor) -> Tensor:
        """The images of codes (B, h, w), as (B, 3, H, W)."""
        images: Tensor = self.model.decode(codes)
        return images


def stride_of(config: PreTrainedConfig) -> int:
    """Pixels per side that one code stands for: each level but the last halves the image."""
    return int(2 ** (len(config.channel_multiplier) - 1))


def codebook_size_of(config: PreTrainedConfig) -> int:
    """Number of codes; Emu3 calls it by another name."""
    name = "codebook_size" if config.model_type == Emu3VQVAEConfig.model_type else "num_embeddings"
    return int(getattr(config, name))


def load_codec(settings: PublishedVQ, folder: Path) -> Codec:
    """The network of the tokenizer in `folder`, in float32."""
    size, place = settings.image_size, str(folder)
    codec: JanusCodec | ChameleonCodec | Emu3Codec
    match settings.kind:
        case "janus" | "llamagen":
            codec = JanusCodec(JanusVQVAEConfig.from_pretrained(place), size)
        case "chameleon":
            codec = ChameleonCodec(ChameleonVQVAEConfig.from_pretrained(place), size)
        case "emu3":
            codec = Emu3Codec(Emu3VQVAEConfig.from_pretrained(place), size)
    codec.model.load_state_dict(load_file(folder / WEIGHTS))
    return codec.float()
