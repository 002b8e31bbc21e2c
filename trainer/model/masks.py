"""What a token may look at.

Legend: B batch, T tokens.
"""

from __future__ import annotations

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
