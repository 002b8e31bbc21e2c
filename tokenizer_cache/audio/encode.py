"""The stage that tokenizes sounds: the codes of every one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.device import use_threads
from pipeline.engine.stage import Output, Row, Work
from pipeline.sounds import read_sound
from tokenizer_cache.audio.settings import AudioSettings, PublishedAudioSettings
from tokenizer_cache.packed_codes import bits_per_code, pack, unpack_grid

if TYPE_CHECKING:
    from tokenizer_cache.audio.tokenizer import AudioTokenizer


class EncodeAudioWorker:
    """Encodes the sounds of one part.

    Reads: `records`; the model `audio`.
    Writes: one row of `audio_tokens` per record with a sound.
    Rejects: none; ingest has left out what cannot be decoded.
    Source: SoundStream (Zeghidour et al., arXiv:2107.03312).
    """

    def __init__(
        self, _settings: AudioSettings | PublishedAudioSettings, models: Mapping[str, Path]
    ) -> None:
        self._models = models

    @cached_property
    def _tokenizer(self) -> AudioTokenizer:
        """Loaded with the first sound: a part of pictures needs it not."""
        from tokenizer_cache.audio.tokenizer import load_audio

        return load_audio(self._models["audio"])

    def __call__(self, work: Work) -> Output:
        """The codes of the part's sounds, in the order of the records."""
        records = work.read("records", ["record_id", "sound"])
        sounds = records.filter(records["sound"].is_valid()).to_pylist()
        return Output(rows=self._encode(work, sounds) if sounds else [])

    @use_threads(1)
    def _encode(self, work: Work, sounds: Sequence[Mapping[str, Any]]) -> list[Row]:
        rows: list[Row] = []
        bits = bits_per_code(self._tokenizer.codebook_size)
        for record in work.each(sounds):
            sound = read_sound(record["sound"])
            codes = self._tokenizer.encode(self._tokenizer.prepare(sound))  # (N, Q)
            rows.append(
                {
                    "record_id": record["record_id"],
                    "frames": codes.shape[0],
                    "codebooks": codes.shape[1],
                    "bits": bits,
                    "codes": pack(codes[np.newaxis], bits)[0],
                }
            )
        return rows


def frames_by_record(work: Work) -> dict[str, np.ndarray]:
    """The codes (n, q) uint16 of the part's sounds; none where no source has sounds."""
    if "audio_tokens" not in work.inputs:
        return {}
    return {
        row["record_id"]: unpack_grid(row["codes"], row["bits"], row["frames"], row["codebooks"])
        for row in work.read("audio_tokens").to_pylist()
    }
