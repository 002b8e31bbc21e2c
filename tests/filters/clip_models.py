"""Small CLIP models with random weights, as somebody would publish them."""

import json

import open_clip
import torch
from safetensors.torch import save_file

CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 48, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
    "text_cfg": {
        "context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2,
    },
}  # fmt: skip
PREPROCESS = {
    "mean": [0.3, 0.4, 0.5], "std": [0.2, 0.3, 0.25],
    "interpolation": "bilinear", "resize_mode": "squash",
}  # fmt: skip


def saved(folder, config=CONFIG, preprocess=PREPROCESS):
    """A model with random weights in the layout of open_clip's `local-dir:`."""
    folder.mkdir()
    network = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = network(**{key: value for key, value in config.items() if key != "custom_text"})
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    described = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    return folder
