"""What the vocabulary must know of an audio tokenizer; imports no torch."""

from pathlib import Path

from pipeline.engine.fingerprint import fingerprint, hash_file
from pipeline.engine.storage import read_json
from tokenizer_cache.audio.settings import AudioSettings, PublishedAudio
from tokenizer_cache.vocabulary import TokenizerDescription

WEIGHTS = "model.safetensors"
SETTINGS = "settings.json"


def read_settings(folder: Path) -> AudioSettings | PublishedAudio:
    """What the audio tokenizer in `folder` is."""
    value = read_json(folder / SETTINGS)
    known = AudioSettings if value["kind"] == "trained" else PublishedAudio
    return known.model_validate(value)


def describe_audio(folder: Path) -> TokenizerDescription:
    """What the vocabulary must know of the audio tokenizer in `folder`."""
    settings = read_settings(folder)
    return TokenizerDescription(
        modality="audio",
        num_tokens=settings.num_codebooks * settings.codebook_size,
        # The same weights with fewer codebooks give an id another meaning.
        fingerprint=fingerprint(
            weights=hash_file(folder / WEIGHTS), codebooks=settings.num_codebooks
        ),
        codebooks=settings.num_codebooks if settings.num_codebooks > 1 else None,
    )
