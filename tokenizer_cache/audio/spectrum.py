"""Between sounds and patches of their log-mel spectrum, one patch for each code.

Legend: B batch, S samples, F frequencies, M mel bands, T columns of a spectrum, N patches.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

NUM_MEL = 64
COLUMNS = 4
"""Columns of the spectrum in a patch: of 320 samples at 16,000 Hz, one for each 5 ms."""
SILENCE = 1e-2
"""A magnitude; 84 dB below that of a tone of full scale in a window of 640 samples."""
_NUM_ITERATIONS = 32
_MOMENTUM = 0.99


class MelPatches(nn.Module):
    """A fixed transform: it learns nothing and has no weights.

    The phase of a sound is left out, and made up again by the way back.
    """

    def __init__(self, sampling_rate: int, stride: int) -> None:
        super().__init__()
        self._hop, self._size = stride // COLUMNS, 2 * stride
        bank = mel_filter_bank(
            num_frequency_bins=self._size // 2 + 1,
            num_mel_filters=NUM_MEL,
            min_frequency=0,
            max_frequency=sampling_rate / 2,
            sampling_rate=sampling_rate,
        )
        bands = torch.from_numpy(bank.T).float()  # (M, F)
        self._bands: Tensor
        self._bins: Tensor
        self._window: Tensor
        self.register_buffer("_bands", bands, persistent=False)
        self.register_buffer("_bins", torch.linalg.pinv(bands), persistent=False)  # (F, M)
        self.register_buffer("_window", torch.hann_window(self._size), persistent=False)
        # A tone of full scale has this magnitude.
        self._range = math.log(self._size / 4 / SILENCE)

    @property
    def decibels(self) -> float:
        """What a difference of 1 between patches is in dB."""
        return self._range * 20 / math.log(10)

    def forward(self, sounds: Tensor) -> Tensor:
        """The patches of sounds.

        Args:
            sounds: (B, S) float32 in [-1, 1], S a multiple of the stride.

        Returns:
            (B, COLUMNS * NUM_MEL, N) float32, 0 for silence, 1 for a tone of full scale.
        """
        magnitudes = self._spectrum(sounds)[..., :-1].abs()  # (B, F, T)
        levels = (self._bands @ magnitudes).clamp(min=SILENCE).div(SILENCE).log() / self._range
        return rearrange(levels, "b m (n k) -> b (k m) n", k=COLUMNS)

    def invert(self, patches: Tensor) -> Tensor:
        """Sounds (B, S) in [-1, 1] whose patches are near these (B, COLUMNS * NUM_MEL, N).

        The phase is found by turns (Griffin and Lim, Signal Estimation from Modified Short-Time
        Fourier Transform, 1984; with the momentum of Perraudin et al., A Fast Griffin-Lim
        Algorithm, 2013, algorithm 2), always from the same start.
        """
        levels = rearrange(patches, "b (k m) n -> b m (n k)", k=COLUMNS)
        magnitudes = SILENCE * torch.exp(levels * self._range)  # (B, M, T)
        magnitudes = F.pad((self._bins @ magnitudes).clamp(min=0), (0, 1))  # (B, F, T + 1)
        chance = torch.Generator().manual_seed(0)
        angles = torch.rand(magnitudes.shape[1:], generator=chance).to(magnitudes) * 2 * math.pi
        phase = torch.polar(torch.ones_like(angles), angles).expand_as(magnitudes)
        before = torch.zeros_like(phase)
        for _ in range(_NUM_ITERATIONS):
            spectrum = self._spectrum(self._sounds(magnitudes * phase))
            ahead = spectrum - before * (_MOMENTUM / (1 + _MOMENTUM))
            phase = ahead / ahead.abs().clamp(min=1e-9)
            before = spectrum
        return self._sounds(magnitudes * phase).clamp(-1, 1)

    def _spectrum(self, sounds: Tensor) -> Tensor:
        """(B, F, S / hop + 1) complex; silence is around a sound, so that any length will do."""
        return torch.stft(
            sounds,
            self._size,
            self._hop,
            window=self._window,
            pad_mode="constant",
            return_complex=True,
        )

    def _sounds(self, spectrum: Tensor) -> Tensor:
        """(B, S) of a spectrum (B, F, S / hop + 1)."""
        length = (spectrum.shape[-1] - 1) * self._hop
        return torch.istft(spectrum, self._size, self._hop, window=self._window, length=length)
