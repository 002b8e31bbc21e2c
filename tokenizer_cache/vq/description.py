"""What the vocabulary must know of an image tokenizer; imports no torch.

Every command that opens a corpus asks for it, and most of them need no model.
"""

from pathlib import Path

from pipeline.engine.fingerprint import fingerprint, hash_file
from pipeline.engine.storage import read_json
from tokenizer_cache.settings import PublishedVQ, VQSettings
from tokenizer_cache.vocabulary import TokenizerDescription

WEIGHTS = "model.safetensors"
SETTINGS = "settings.json"


def read_settings(folder: Path) -> VQSettings | PublishedVQ:
    """What the image tokenizer in `folder` is."""
    value = read_json(folder / SETTINGS)
    if value.get("kind", "trained") == "trained":
        return VQSettings.model_validate(value)
    return PublishedVQ.model_validate(value)


def describe_vq(folder: Path) -> TokenizerDescription:
    """What the vocabulary must know of the image tokenizer in `folder`."""
    settings = read_settings(folder)
    side = settings.image_size // settings.stride
    return TokenizerDescription(
        modality="image",
        num_tokens=settings.codebook_size,
        fingerprint=fingerprint(weights=hash_file(folder / WEIGHTS)),
        grid=(side, side),
    )
