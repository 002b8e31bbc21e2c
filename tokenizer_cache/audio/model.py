"""The network: sound to codes to sound, around a vector-quantised codebook.

Legend: S samples, N patches and so codes, D codebook dimensions.

What becomes a code is a patch of the log-mel spectrum, and the loss is of such patches. Ours: on
tones, chirps and noise, 600 steps of 8 seconds bring held-out sounds to 2.1 dB of log-mel distance;
with patches of samples as the input 8.2 dB; and with samples as the output, too, 20.7 dB, where
silence has 20.4: one code for 20 ms has no room for the phase.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize

from tokenizer_cache.audio.settings import AudioSettings
from tokenizer_cache.audio.spectrum import COLUMNS, NUM_MEL, MelPatches


class AudioModel(nn.Module):
    """A sound to codes and back.

    The codebook is that of `tokenizer_cache.vq.model`: moving averages, k-means start, revival of
    codes that are hardly used, codes and encodings of unit length.
    """

    def __init__(self, settings: AudioSettings) -> None:
        super().__init__()
        width, values = settings.width, COLUMNS * NUM_MEL

        def blocks() -> list[nn.Module]:
            return [_Block(width) for _ in range(settings.depth)]

        self._stride = settings.stride
        self.patches = MelPatches(settings.sampling_rate, settings.stride)
        self.encoder = nn.Sequential(
            nn.Conv1d(values, width, 3, padding=1),
            *blocks(),
            _Norm(width),
            nn.Conv1d(width, settings.codebook_dim, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv1d(settings.codebook_dim, width, 3, padding=1),
            *blocks(),
            _Norm(width),
            nn.Conv1d(width, values, 1),
        )
        codes_per_batch = settings.batch_size * settings.crop_codes
        self.quantizer = VectorQuantize(
            settings.codebook_dim,
            settings.codebook_size,
            decay=settings.ema_decay,
            commitment_weight=settings.commitment_weight,
            threshold_ema_dead_code=(
                settings.dead_code_share * codes_per_batch / settings.codebook_size
            ),
            kmeans_init=True,
            use_cosine_sim=True,
            rotation_trick=True,
            channel_last=False,
        )

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Patches of `MelPatches` through the codebook and back, and the commitment loss."""
        quantized, _, loss = self.quantizer(self.encoder(patches))
        return self.decoder(quantized), loss.sum()

    def autoencode(self, patches: Tensor) -> Tensor:
        """Past the codebook and back: what the warm-up trains."""
        reconstructions: Tensor = self.decoder(F.normalize(self.encoder(patches), dim=1))
        return reconstructions

    def encode(self, sound: Tensor) -> Tensor:
        """The codes of a sound (S,), the last one filled up with silence, as (N, 1) int64."""
        whole = F.pad(sound, (0, -len(sound) % self._stride))
        codes: Tensor = self.quantizer(self.encoder(self.patches(whole[None])))[1]  # (1, N)
        return codes[0, :, None]

    def decode(self, codes: Tensor) -> Tensor:
        """The sound of codes (N, 1), as (S,) float32 in [-1, 1]."""
        quantized = self.quantizer.get_codes_from_indices(codes[None, :, 0])  # (1, D, N)
        sounds: Tensor = self.patches.invert(self.decoder(quantized))
        return sounds[0]


class _Norm(nn.LayerNorm):
    """LayerNorm of each position alone, (B, W, N): a code must not depend on a sound's length."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class _Block(nn.Module):
    """ConvNeXt's block in one dimension (Siuzdak, Vocos, arXiv:2306.00814, section 3.3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Conv1d(3 * width, width, 1)
        # A block that starts as the identity lets the first steps train the layers around it.
        nn.init.zeros_(last.weight)
        self.block = nn.Sequential(
            nn.Conv1d(width, width, 7, padding=3, groups=width),
            _Norm(width),
            nn.Conv1d(width, 3 * width, 1),
            nn.GELU(),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.block(x))
