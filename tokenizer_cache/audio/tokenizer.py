"""An audio tokenizer that is ready for use: how it is saved and loaded.

Legend: S samples, N frames, Q codebooks.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.signal import resample_poly
from torch import Tensor

from pipeline.device import best_device, keeping_random_state
from pipeline.engine.storage import commit_json
from pipeline.sounds import Sound
from tokenizer_cache.audio.description import SETTINGS, WEIGHTS, read_settings
from tokenizer_cache.audio.model import AudioModel
from tokenizer_cache.audio.settings import AudioSettings, PublishedAudio


class AudioCodec(Protocol):
    """A network between a sound and its codes."""

    def encode(self, sound: Tensor) -> Tensor:
        """The codes of a sound (S,) float32, as (N, Q) int64."""

    def decode(self, codes: Tensor) -> Tensor:
        """The sound of codes (N, Q), as (S,) float32."""

    def to(self, device: torch.device) -> Self:
        """The network on a device."""

    def eval(self) -> Self:
        """The network as it is used."""

    def requires_grad_(self, requires_grad: bool) -> Self:
        """The network with or without gradients."""


class AudioTokenizer:
    """Sounds to codes and back, one sound at a time, without gradients, on the best device.

    One at a time, so that no code depends on what a sound is padded with beside a longer one.
    """

    def __init__(self, codec: AudioCodec, settings: AudioSettings | PublishedAudio) -> None:
        self._device = best_device()
        self._codec = codec.to(self._device).eval().requires_grad_(requires_grad=False)
        self.sampling_rate = settings.sampling_rate
        self.num_codebooks = settings.num_codebooks
        self.codebook_size = settings.codebook_size

    def prepare(self, sound: Sound) -> np.ndarray:
        """A sound as `encode` takes it: (S,) float32."""
        return mono(sound, self.sampling_rate)

    @torch.inference_mode()
    def encode(self, prepared: np.ndarray) -> np.ndarray:
        """The codes of a prepared sound (S,), as (N, Q) uint16."""
        codes = self._codec.encode(torch.from_numpy(prepared).to(self._device))  # (N, Q)
        return codes.cpu().numpy().astype(np.uint16)

    @torch.inference_mode()
    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The sound of (N, Q) codes: (S,) float32, at the tokenizer's sampling rate."""
        values = torch.from_numpy(codes.astype(np.int64)).to(self._device)
        return self._codec.decode(values).cpu().numpy()


def mono(sound: Sound, sampling_rate: int) -> np.ndarray:
    """A sound as (S,) float32 in about [-1, 1]: the mean of its channels at another rate."""
    samples = sound.samples.mean(axis=1, dtype=np.float32) / np.float32(32_768)  # (S,)
    if sound.sampling_rate != sampling_rate:
        common = math.gcd(sound.sampling_rate, sampling_rate)
        samples = resample_poly(samples, sampling_rate // common, sound.sampling_rate // common)
    return np.ascontiguousarray(samples, dtype=np.float32)


def save_audio(folder: Path, settings: AudioSettings, model: AudioModel) -> None:
    """Save weights and settings for `load_audio`."""
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / WEIGHTS)
    commit_json(folder / SETTINGS, settings.model_dump(mode="json"))


@keeping_random_state()
def load_audio(folder: Path) -> AudioTokenizer:
    """The tokenizer that a fit of `audio` saved."""
    settings = read_settings(folder)
    if isinstance(settings, AudioSettings):
        model = AudioModel(settings)
        model.load_state_dict(load_file(folder / WEIGHTS))
        return AudioTokenizer(model, settings)
    from tokenizer_cache.audio.published import load_codec

    return AudioTokenizer(load_codec(settings, folder), settings)
