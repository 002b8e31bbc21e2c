"""The plain decoder that `train.py` compares with: what nanoGPT is, with a mask of documents.

It differs from ours in LayerNorm for RMSNorm, GELU for a squared ReLU, learned positions for RoPE,
no QK-norm, no grid places, no z-loss and no average of the weights; and AdamW trains all of it,
where ours has Muon for the matrices of the blocks, which costs more a step and needs fewer steps.

Legend: B rows, T tokens, D width, H heads, K head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from trainer.data.packing import NO_TARGET
from trainer.model.masks import document_mask
from trainer.settings import ModelSettings


class PlainDecoder(nn.Module):
    """Logits of the next token."""

    def __init__(self, settings: ModelSettings, *, vocab_size: int, seq_len: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, settings.width)
        self.positions = nn.Embedding(seq_len, settings.width)
        self.blocks = nn.ModuleList(
            PlainBlock(settings.width, settings.heads) for _ in range(settings.layers)
        )
        self.norm = nn.LayerNorm(settings.width, bias=False)
        self.head = nn.Linear(settings.width, vocab_size, bias=False)

    def forward(self, tokens: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(positions)  # (B, T, D)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x))


class PlainBlock(nn.Module):
    """Attention and MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        qkv = self.qkv(self.norms[0](x))
        q, k, v = rearrange(qkv, "b t (three h k) -> three b h t k", three=3, h=self.heads)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(rearrange(y, "b h t k -> b t (h k)"))
        return x + self.down(F.gelu(self.up(self.norms[1](x))))


class PlainTraining:
    """Steps of `PlainDecoder` with AdamW."""

    def __init__(self, settings: ModelSettings, *, vocab_size: int, seq_len: int) -> None:
        self._model = PlainDecoder(settings, vocab_size=vocab_size, seq_len=seq_len)
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )

    def step(self, tokens: Tensor, targets: Tensor, documents: Tensor, positions: Tensor) -> None:
        """Train on (B, T) int64 tensors."""
        logits = self._model(tokens, positions, document_mask(documents))
        F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=NO_TARGET).backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
