"""What the vocabulary must know of a trained image tokenizer; imports no torch.

Every command that opens a corpus asks for it, and most of them need no model.
"""

from pathlib import Path

from pipeline.engine.fingerprint import fingerprint, hash_file
from pipeline.engine.storage import read_json
from tokenizer_cache.settings import VQSettings
from tokenizer_cache.vocabulary import TokenizerDescription

WEIGHTS = "model.safetensors"
SETTINGS = "settings.json"


def describe_vq(folder: Path) -> TokenizerDescription:
    """What the vocabulary must know of the image tokenizer in `folder`."""
    settings = VQSettings.model_validate(read_json(folder / SETTINGS))
    side = settings.image_size // settings.stride
    return TokenizerDescription(
        modality="image",
        num_tokens=settings.codebook_size,
        fingerprint=fingerprint(weights=hash_file(folder / WEIGHTS)),
        grid=(side, side),
    )
