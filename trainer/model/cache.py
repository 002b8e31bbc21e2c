"""Keys and values of the tokens that a model has already read, for sampling.

Legend: B batch, H heads, T new tokens, S cached and new tokens, K head width.
"""

from __future__ import annotations

import torch
from torch import Tensor


class LayerCache:
    """Room for the keys and values of one layer; filled from left to right."""

    def __init__(
        self, *, batch: int, heads: int, max_tokens: int, head_width: int, device: torch.device
    ) -> None:
        self._keys = torch.zeros(batch, heads, max_tokens, head_width, device=device)
        self._values = torch.zeros(batch, heads, max_tokens, head_width, device=device)
        self._length = 0

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append (B, H, T, K) keys and values; gives all so far, (B, H, S, K) each."""
        start, self._length = self._length, self._length + keys.shape[2]
        self._keys[:, :, start : self._length] = keys
        self._values[:, :, start : self._length] = values
        return self._keys[:, :, : self._length], self._values[:, :, : self._length]
