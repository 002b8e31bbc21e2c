"""Rows as the tensors that the model takes.

Legend: B rows, T tokens, V vocabulary, G codes of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tokenizer_cache.vocabulary import Vocabulary
from trainer.data.packing import Row
from trainer.model.attention import mask_of
from trainer.model.decoder import Decoder
from trainer.settings import ModelSettings

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Packed rows on the model's device.

    Attributes:
        tokens: (B, T) int64 ids.
        targets: (B, T) int64 ids of the next tokens, or `NO_TARGET`.
        weights: (B, T) float32, what each target counts.
        positions: (B, T) int64, from 0 in each document.
        places: (B, T) int64, place in the code grid.
        mask: what keeps the documents apart, from `attention.mask_of`.
    """

    tokens: Tensor
    targets: Tensor
    weights: Tensor
    positions: Tensor
    places: Tensor
    mask: Tensor | BlockMask

    def hidden(self, model: Decoder) -> Tensor:
        """(B, T, D) float, what the model's head takes."""
        return model.hidden(
            self.tokens, positions=self.positions, places=self.places, mask=self.mask
        )


def collate(rows: Sequence[Row], device: torch.device) -> Batch:
    """Stack rows of one length into a batch."""
    tokens, targets, weights, documents, positions, places = (
        torch.from_numpy(np.stack([getattr(row, name) for row in rows])).to(device)
        for name in ("tokens", "targets", "weights", "documents", "positions", "places")
    )  # (B, T) each
    return Batch(
        tokens=tokens,
        targets=targets,
        weights=weights,
        positions=positions,
        places=places,
        mask=mask_of(documents),
    )


def build_model(settings: ModelSettings, vocabulary: Vocabulary, *, seed: int) -> Decoder:
    """A model for a vocabulary with weights drawn from `seed`, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        has_grid = vocabulary.has("image") and vocabulary.image.grid is not None
        num_codes = vocabulary.image.num_codes if has_grid else 0
        return Decoder(settings, vocab_size=vocabulary.size, num_codes=num_codes)


def modalities(vocabulary: Vocabulary) -> dict[str, range]:
    """The ids of each modality: `special`, `text`, `image`."""
    return {each.modality: range(each.start, each.stop) for each in vocabulary.ranges}
