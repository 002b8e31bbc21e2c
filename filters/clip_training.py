"""Trains one small CLIP on pairs in memory.

Legend: B pairs of a step, N pairs, D width of the embedding, T context length, s image size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from filters.clip import create_model, normalize
from filters.settings import ClipSettings
from pipeline.device import best_device, seeded
from pipeline.one_cycle import warmup_share

_START = 49_406
"""open_clip's token before a text, the last but one of its vocabulary; after it, the one after."""


class ClipTraining:
    """A model and its optimiser, which goes on where it was when it is given other pairs.

    One schedule spans all of the steps, whatever they are done on.
    """

    def __init__(self, settings: ClipSettings, seed: int) -> None:
        self._device = best_device()
        with seeded(seed):
            self._model = create_model(settings)
        self._model.to(self._device)
        self._batch_size = settings.batch_size
        self._max_shift = settings.max_shift
        self._replaced_words = settings.replaced_words
        self._optimizer = torch.optim.AdamW(
            _parameter_groups(self._model, settings.weight_decay),
            lr=settings.learning_rate,
            betas=(0.9, 0.98),  # arXiv 2103.00020, appendix F
            fused=True,
        )
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer,
            max_lr=settings.learning_rate,
            total_steps=settings.steps,
            pct_start=warmup_share(0.1, settings.steps),
        )
        self._chance = np.random.default_rng(seed)

    def run(self, pixels: np.ndarray, tokens: Tensor, num_steps: int) -> Iterator[float]:
        """Train for some steps, each in a batch of its own; yields the loss of each.

        Args:
            pixels: (N, s, s, 3) uint8.
            tokens: (N, T) int64 of their captions.
            num_steps: how many.
        """
        self._model.train()
        size = min(self._batch_size, len(pixels))
        order = np.empty(0, dtype=np.int64)
        for _ in range(num_steps):
            if len(order) < size:
                order = self._chance.permutation(len(pixels))
            picked, order = order[:size], order[size:]
            moved = shift(pixels[picked], self._max_shift, self._chance)
            yield self._step(normalize(moved), tokens[picked])

    def save(self, path: Path) -> None:
        """Write the weights."""
        state = self._model.state_dict()
        save_file({name: value.contiguous().cpu() for name, value in state.items()}, path)

    def _step(self, pictures: Tensor, tokens: Tensor) -> float:
        model = self._model
        image = model.encode_image(pictures.to(self._device), normalize=True)  # (B, D)
        spoken = replace_words(tokens, self._replaced_words, self._chance)
        text = model.encode_text(spoken.to(self._device), normalize=True)  # (B, D)
        loss = contrastive_loss(model.logit_scale.exp() * image @ text.T, tokens.to(self._device))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        self._optimizer.step()
        self._schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))  # arXiv 2103.00020, section 2.5
        return loss.item()


def shift(pixels: np.ndarray, most: int, chance: np.random.Generator) -> np.ndarray:
    """Pictures moved a little, each its own way; what comes in at an edge repeats it.

    Nothing is mirrored, turned or given other colours: the caption may say how it is.

    Args:
        pixels: (B, s, s, 3) uint8.
        most: pixels, in each direction.
        chance: draws the way.
    """
    size = pixels.shape[1]
    wide = np.pad(pixels, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    starts = chance.integers(0, 2 * most + 1, size=(len(pixels), 2))
    return np.stack(
        [
            picture[top : top + size, left : left + size]
            for picture, (top, left) in zip(wide, starts, strict=True)
        ]
    )


def replace_words(tokens: Tensor, share: float, chance: np.random.Generator) -> Tensor:
    """Captions with random tokens in the place of some (Wang et al., SwitchOut, arXiv 1808.07512).

    Most tokens of the vocabulary are in no caption of a small corpus. The model so learns what to
    make of a word that it has not seen, and not to rely on one alone.

    Args:
        tokens: (B, T) int64; the first, the last and the padding are left.
        share: of the tokens that are replaced.
        chance: draws them.
    """
    is_word = (tokens > 0) & (tokens < _START)
    chosen = is_word & torch.from_numpy(chance.random(tuple(tokens.shape)) < share)
    others = torch.from_numpy(chance.integers(1, _START, tuple(tokens.shape)))
    return torch.where(chosen, others, tokens)


def contrastive_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """CLIP's loss, in which all pairs of a batch with the same caption are right ones.

    With few different captions a batch holds many a caption twice, and to tell a picture from the
    other's would be to learn nonsense (Yang et al., Unified Contrastive Learning in
    Image-Text-Label Space, arXiv 2204.03610, equations 2 to 4).

    Args:
        logits: (B, B) float32, pictures by captions.
        tokens: (B, T) int64 of the captions.
    """
    same = (tokens[:, None] == tokens[None]).all(dim=-1).to(logits)  # (B, B)
    target = same / same.sum(dim=1, keepdim=True)  # (B, B), symmetric
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices with weight decay; gains, biases and the temperature without, as open_clip does."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
