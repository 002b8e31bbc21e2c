"""Published image tokenizers, shrunk and with random weights, in transformers' format."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import (
    ChameleonImageProcessorPil,
    ChameleonVQVAE,
    ChameleonVQVAEConfig,
    Emu3ImageProcessor,
    Emu3VQVAE,
    Emu3VQVAEConfig,
    JanusImageProcessorPil,
    JanusVQVAE,
    JanusVQVAEConfig,
)

SIZE, GRID, NUM_CODES = 16, (8, 8), 64
SMALL = {"base_channels": 32, "channel_multiplier": [1, 2], "num_res_blocks": 1}


def janus(*, unit_codes: bool) -> JanusVQVAE:
    config = JanusVQVAEConfig(
        **SMALL, embed_dim=4, num_embeddings=NUM_CODES, latent_channels=32, num_patches=8
    )
    model = JanusVQVAE(config).eval()
    weight = model.quantize.embedding.weight
    torch.nn.init.normal_(weight)
    if unit_codes:
        for _ in range(3):  # until normalising changes no bit
            weight.data = F.normalize(weight.data, dim=-1)
    return model


def saved(kind: str, folder: Path) -> Any:
    """A model and its image processor, in transformers' format; the model."""
    side = {"height": SIZE, "width": SIZE}
    match kind:
        case "janus":
            model, mean = janus(unit_codes=True), [0.5, 0.5, 0.5]
            processor = JanusImageProcessorPil(size=side, image_mean=mean, image_std=mean)
        case "chameleon":
            config = ChameleonVQVAEConfig(
                **SMALL, embed_dim=32, num_embeddings=NUM_CODES, latent_channels=32, resolution=SIZE
            )
            model = ChameleonVQVAE(config).eval()
            processor = ChameleonImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=side)
        case "emu3":
            config = Emu3VQVAEConfig(
                **SMALL, codebook_size=NUM_CODES, attn_resolutions=[1], hidden_size=64
            )
            model = Emu3VQVAE(config).eval()
            processor = Emu3ImageProcessor(
                min_pixels=SIZE * SIZE, max_pixels=SIZE * SIZE, spatial_factor=2
            )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model
