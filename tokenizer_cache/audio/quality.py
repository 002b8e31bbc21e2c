"""How well sounds survive an audio tokenizer.

Legend: S samples, K codebook size, Q codebooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tokenizer_cache.audio.spectrum import MelPatches
from tokenizer_cache.audio.tokenizer import AudioTokenizer
from tokenizer_cache.vq.quality import use_of

METRICS = "metrics.json"

MAX_HELD_OUT_S = 300
"""Seconds of sound that are measured. Ours: enough for steady figures, and it takes seconds."""
_STRIDE_S = 0.02
"""Of the spectrum that is compared, whatever the tokenizer's own frames are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioQuality:
    """How well sounds survive the tokenizer.

    Attributes:
        mel_distance: mean distance in dB of the log-mel spectra of a sound and of what its codes
            decode to; 0 is the same. Unlike a ratio of signal to noise it asks for no phase.
        codebook_usage: share of all the codes that the sounds use.
        perplexity: how many codes of a codebook are used effectively: two to the entropy in bits,
            the mean over the codebooks.
    """

    mel_distance: float
    codebook_usage: float
    perplexity: float


def measure(tokenizer: AudioTokenizer, sounds: Sequence[np.ndarray]) -> AudioQuality:
    """The quality on prepared sounds, (S,) each."""
    encoded = [tokenizer.encode(sound) for sound in sounds]  # (N, Q) each
    again = [tokenizer.decode(codes) for codes in encoded]
    uses = [use_of(column, tokenizer.codebook_size) for column in np.concatenate(encoded).T]
    usage, perplexity = np.mean(uses, axis=0).tolist()
    distances = [
        mel_distance(sound, copy[: len(sound)], tokenizer.sampling_rate)
        for sound, copy in zip(sounds, again, strict=True)
    ]
    lengths = [len(sound) for sound in sounds]
    return AudioQuality(
        mel_distance=float(np.average(distances, weights=lengths)),
        codebook_usage=usage,
        perplexity=perplexity,
    )


@torch.inference_mode()
def mel_distance(sound: np.ndarray, other: np.ndarray, sampling_rate: int) -> float:
    """The mean distance in dB of the log-mel spectra of two sounds (S,), both in [-1, 1]."""
    stride = 4 * round(_STRIDE_S * sampling_rate / 4)
    patches = MelPatches(sampling_rate, stride)
    length = -(-max(len(sound), len(other)) // stride) * stride
    both = np.stack([np.pad(each, (0, length - len(each))) for each in (sound, other)])
    one, two = patches(torch.from_numpy(both))
    return float((one - two).abs().mean()) * patches.decibels
