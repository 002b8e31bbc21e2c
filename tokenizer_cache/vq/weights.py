"""Published weights of an image tokenizer, as their authors keep them, for transformers' networks.

A checkpoint of a whole model is read no further than the tokenizer in it. Nothing is unpickled:
safetensors, and LlamaGen's `.pt` with `weights_only`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 - what torch raises where it refuses a file

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import JanusVQVAEConfig, PreTrainedConfig

from pipeline.engine.storage import read_json
from pipeline.errors import UserError
from tokenizer_cache.hub import find_hub_file, hub_file, hub_place
from tokenizer_cache.settings import MAX_CODES, PublishedVQSettings
from tokenizer_cache.vq.published import CONFIGS, codebook_size_of

_INSIDE = "vqmodel."
"""What the names of a tokenizer's tensors contain, and end the prefix with, in a whole model."""

_LLAMAGEN_NAMES = (
    (r"^encoder\.conv_blocks\.", "encoder.down."),
    (r"^decoder\.conv_blocks\.", "decoder.up."),
    (r"\.res\.", ".block."),
    (r"\.mid\.0\.", ".mid.block_1."),
    (r"\.mid\.1\.", ".mid.attn_1."),
    (r"\.mid\.2\.", ".mid.block_2."),
)
"""LlamaGen's names (tokenizer/tokenizer_image/vq_model.py) in the order in which they are turned
into those of transformers' JanusVQVAE."""


def read_weights(settings: PublishedVQSettings) -> tuple[PreTrainedConfig, dict[str, Tensor]]:
    """The configuration and the tensors of a published tokenizer.

    Raises:
        UserError: when they are not there or are another model's.
    """
    try:
        if settings.kind == "llamagen":
            tensors = read_llamagen(Path(settings.weights))
            return _checked(llamagen_config(tensors), settings), tensors
        place, where = hub_place(settings.weights)
        config = _checked(CONFIGS[settings.kind].from_pretrained(place, **where), settings)
        return config, _read_tensors(settings.weights)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{settings.weights} holds no image tokenizer of the kind {settings.kind}: {error}",
            "image_tokenizer.weights is a folder or a name on the Hugging Face hub with "
            "config.json, preprocessor_config.json and model.safetensors; for llamagen a .pt file.",
        ) from error


def _checked(config: PreTrainedConfig, settings: PublishedVQSettings) -> PreTrainedConfig:
    """The same, of a codebook that can be stored; raises a UserError for a larger one."""
    if codebook_size_of(config) > MAX_CODES:
        raise UserError(
            f"image_tokenizer: the codebook of {settings.weights} has {codebook_size_of(config)} "
            f"codes, and tables and shards hold at most {MAX_CODES}",
            "Take a tokenizer with a smaller codebook.",
        )
    return config


def read_llamagen(path: Path) -> dict[str, Tensor]:
    """The tensors of LlamaGen's `vq_ds16_*.pt` under the names of transformers' JanusVQVAE."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        # torch's own message says how to load it all the same.
        message = "it holds more than tensors, and could run code"
        raise ValueError(message) from error
    tensors: dict[str, Tensor] = {}
    for name, tensor in content["model"].items():
        if name == "quantize.codebook_used":
            continue  # a counter of the training
        renamed = name
        for pattern, replacement in _LLAMAGEN_NAMES:
            renamed = re.sub(pattern, replacement, renamed)
        tensors[renamed] = tensor
    return tensors


def llamagen_config(tensors: Mapping[str, Tensor]) -> JanusVQVAEConfig:
    """The shape of a network whose tensors are all that its file holds."""
    base = len(tensors["encoder.conv_in.weight"])
    num_levels = 1 + max(_numbers(tensors, r"encoder\.down\.(\d+)\."))
    num_codes, dim = tensors["quantize.embedding.weight"].shape
    return JanusVQVAEConfig(
        embed_dim=dim,
        num_embeddings=num_codes,
        latent_channels=tensors["quant_conv.weight"].shape[1],
        base_channels=base,
        channel_multiplier=[
            len(tensors[f"encoder.down.{level}.block.0.conv1.weight"]) // base
            for level in range(num_levels)
        ],
        num_res_blocks=1 + max(_numbers(tensors, r"encoder\.down\.0\.block\.(\d+)\.")),
    )


def _read_tensors(weights: str) -> dict[str, Tensor]:
    """The tokenizer's tensors of a folder or a name on the hub, of one file or of several."""
    index = find_hub_file(weights, "model.safetensors.index.json")
    files = ["model.safetensors"]
    if index is not None:
        held = read_json(index)["weight_map"]
        files = sorted({file for name, file in held.items() if _INSIDE in name})
    tensors: dict[str, Tensor] = {}
    for file in files:
        with safe_open(hub_file(weights, file), "pt") as content:
            names = list(content.keys())
            is_whole_model = any(_INSIDE in name for name in names)
            for name in names:
                if _INSIDE in name or not is_whole_model:
                    tensors[name.rpartition(_INSIDE)[2]] = content.get_tensor(name)
    return tensors


def _numbers(names: Mapping[str, Tensor], pattern: str) -> list[int]:
    return [int(found[1]) for name in names if (found := re.match(pattern, name))]
