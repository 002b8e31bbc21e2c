"""What a token may look at, and where in a picture it stands.

Legend: B batch, T tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor


def document_mask(documents: Tensor) -> Tensor:
    """Causal attention inside each document.

    Args:
        documents: (B, T) int64, the number of each token's document in its row.

    Returns:
        (B, 1, T, T) bool: true where the query (row) may look at the key (column).
    """
    same = documents[:, :, None] == documents[:, None, :]  # (B, T, T)
    return same.tril()[:, None]  # (B, 1, T, T)


def grid_places(tokens: Tensor, *, begin: int, first_code: int, codebook_size: int) -> Tensor:
    """Each token's place in its picture: 0 outside, 1 at `<img>`, then 2, 3, … at the codes.

    Args:
        tokens: (B, T) int64 ids; pictures begin in the row that holds them.
        begin: id of `<img>`.
        first_code: id of image code 0.
        codebook_size: number of image codes.

    Returns:
        (B, T) int64.
    """
    index = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    begins = tokens == begin
    latest = torch.where(begins, index, 0).cummax(dim=1).values  # (B, T)
    inside = begins | ((tokens >= first_code) & (tokens < first_code + codebook_size))
    return torch.where(inside, index - latest + 1, 0)
