"""Rows as the tensors that the model takes.

Legend: B rows, T tokens, V vocabulary, G codes of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tokenizer_cache.code_order import cells
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


def corrupt_codes(batch: Batch, codes: range, most: float, generator: torch.Generator) -> Batch:
    """The batch with random codes in the place of some that the model is given; no target changes.

    A model that draws is given its own codes, wrong ones among them. One that has only seen right
    ones trusts them more than the text, and recites pictures that it knows from their first codes
    (exposure bias: Bengio et al., Scheduled Sampling, arXiv 1506.03099, section 1). Each row has a
    share of its own, so that whole rows are met as well as broken ones.

    Args:
        batch: as it was collated.
        codes: the ids of pictures' codes.
        most: the largest share of a row's codes that is replaced; shares are uniform from 0.
        generator: draws on the CPU, so that every device gives the same batch.
    """
    rows = []
    for row in batch.tokens.cpu():  # (T,), one by one: a step is the same in any micro-batches
        share = most * torch.rand(1, generator=generator)
        is_code = (row >= codes.start) & (row < codes.stop)
        is_hit = is_code & (torch.rand(row.shape, generator=generator) < share)
        others = torch.randint(codes.start, codes.stop, row.shape, generator=generator)
        rows.append(torch.where(is_hit, others, row))
    return replace(batch, tokens=torch.stack(rows).to(batch.tokens.device))


def build_model(settings: ModelSettings, vocabulary: Vocabulary, *, seed: int) -> Decoder:
    """A model for a vocabulary with weights drawn from `seed`, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        codes = cells(vocabulary.image) if vocabulary.has("image") else np.zeros((0, 2), np.int64)
        return Decoder(settings, vocab_size=vocabulary.size, cells=codes)


def modalities(vocabulary: Vocabulary) -> dict[str, range]:
    """The ids of each modality: `special`, `text`, `image`."""
    return {each.modality: range(each.start, each.stop) for each in vocabulary.ranges}
