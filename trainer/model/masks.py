"""What a token may look at.

Legend: B batch, T tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor


def document_mask(documents: Tensor) -> Tensor:
    """Causal attention inside each document.

    Float and not boolean: SDPA turns a boolean mask into this one in every layer anew.

    Args:
        documents: (B, T) int64, the number of each token's document in its row.

    Returns:
        (B, 1, T, T) float32: 0 where the query (row) may look at the key (column), else -inf.
    """
    same = documents[:, :, None] == documents[:, None, :]  # (B, T, T)
    visible = same.tril()
    mask = torch.zeros(visible.shape, device=documents.device)
    return mask.masked_fill_(~visible, float("-inf"))[:, None]  # (B, 1, T, T)
