"""Small sounds, and the tables that ingest would have written of them."""

import hashlib
import io
import wave
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.engine import schemas
from pipeline.engine.stage import FitInputs
from pipeline.engine.tables import part_path, write_table
from tokenizer_cache.audio.settings import AudioSettings

TINY_AUDIO = AudioSettings(
    codebook_size=32, width=32, depth=1, steps=60, batch_size=4, crop_codes=20
)


def tone(hertz: float, seconds: float = 0.5, rate: int = 16_000) -> np.ndarray:
    """(S,) float32."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def chirp(low: float, high: float, seconds: float = 0.5, rate: int = 16_000) -> np.ndarray:
    """(S,) float32 that rises from one frequency to another."""
    time = np.arange(round(seconds * rate)) / rate
    phase = low * time + (high - low) * time**2 / (2 * seconds)
    return (0.4 * np.sin(2 * np.pi * phase)).astype(np.float32)


def hiss(seed: int, seconds: float = 0.5, rate: int = 16_000) -> np.ndarray:
    """(S,) float32 of noise."""
    noise = np.random.default_rng(seed).standard_normal(round(seconds * rate))
    return (0.1 * noise).clip(-1, 1).astype(np.float32)


def wav(samples: np.ndarray, rate: int = 16_000) -> bytes:
    """A 16-bit WAV file of (S,) or (S, C) float32 in [-1, 1]."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32_767).astype("<i2").tobytes())
    return stream.getvalue()


def some_sounds(number: int) -> list[np.ndarray]:
    """Tones, chirps and noise by turns, each another."""
    kinds = (
        lambda n: tone(200 + 60 * n),
        lambda n: chirp(200 + 30 * n, 1500 - 20 * n),
        hiss,
    )
    return [kinds[n % 3](n) for n in range(number)]


def write_records(root: Path, sounds: Mapping[str, bytes], split: str) -> Path:
    """A part of `records` with a sound each, by record id."""
    path = part_path(root / "records", split)
    rows = [
        {
            **dict.fromkeys(schemas.RECORDS.names),
            "record_id": record_id,
            "source": "sounds",
            "key": record_id,
            "sound_id": hashlib.sha256(content).hexdigest(),
            "sound": content,
            "sampling_rate": 16_000,
            "duration_s": 0.5,
            "caption": f"sound {record_id}",
            "more_captions": [],
            "repairs": [],
            "opt_outs": [],
            "licence": "CC0-1.0",
            "attribution": "nobody",
            "split": split,
            "origin": record_id,
        }
        for record_id, content in sounds.items()
    ]
    write_table(path, rows, schemas.RECORDS)
    return path


def inputs(root: Path, train: int = 12, validation: int = 6) -> FitInputs:
    """Sounds of both splits."""
    made = [wav(samples) for samples in some_sounds(train + validation)]
    named = {f"r{number}": content for number, content in enumerate(made)}
    both = list(named.items())
    return FitInputs(
        tables={
            "records": [
                write_records(root, dict(both[:train]), "train"),
                write_records(root, dict(both[train:]), "validation"),
            ]
        },
        models={},
    )
