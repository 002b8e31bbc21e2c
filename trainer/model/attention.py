"""Attention inside each document of a row, by the way that the device is fastest at.

On CUDA FlexAttention skips the blocks that no document reaches, and no T x T mask is made. On a
CPU, SDPA takes a boolean mask of a byte a pair. Measured there on one core, forward and backward of
2,048 tokens, 8 heads of 32: rows of 256 tokens in documents of 85 take 48 ms with that mask, 50
with a float one and 96 with a call for each document. With rows of 1,024 tokens in documents of 128
the calls are faster (70 against 218 ms), but recipes for a CPU have short rows.

Legend: B batch, T tokens, S cached and new tokens, H heads, K head width, N blocks of a row.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.model.masks import document_mask

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

_BLOCK = 128
"""Tokens in a block of FlexAttention's mask, its default."""


def mask_of(documents: Tensor) -> Tensor | BlockMask:
    """What `attend` needs to keep the documents of packed rows apart.

    Args:
        documents: (B, T) int64, the number of each token's document; each document's tokens are
            next to each other.
    """
    return block_mask(documents) if documents.is_cuda else document_mask(documents)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | BlockMask) -> Tensor:
    """The values that each query attends to.

    Args:
        q: (B, H, T, K) float.
        k: (B, H, S, K) float.
        v: (B, H, S, K) float.
        mask: from `mask_of`; or (B, 1, T, S), boolean and true where a query may look at a key, or
            float and added to the scores.

    Returns:
        (B, H, T, K), of the type of `v`.
    """
    if isinstance(mask, Tensor):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    from torch.nn.attention.flex_attention import flex_attention

    # A block that is being compiled takes it in; elsewhere on CUDA it is compiled by itself, as it
    # else makes all the scores.
    is_alone = q.is_cuda and not torch.compiler.is_compiling()
    flex = _compiled_flex_attention() if is_alone else flex_attention
    # Under autocast the norms and rotations are float32, and FlexAttention takes one type.
    out: Tensor = flex(q.to(v.dtype), k.to(v.dtype), v, block_mask=mask)
    return out


def block_mask(documents: Tensor) -> BlockMask:
    """The mask of FlexAttention: for each block of queries, the blocks of keys that it may look at.

    A block of queries looks back as far as the block in which the document of its first token
    begins. That comes from the T document numbers alone.

    Args:
        documents: (B, T) int64; each document's tokens are next to each other.
    """
    from torch.nn.attention.flex_attention import BlockMask

    length = documents.shape[1]
    index = torch.arange(length, device=documents.device).expand_as(documents)  # (B, T)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    start = (
        torch.where(begins, index, 0).cummax(dim=1).values
    )  # (B, T) first token of each document
    first = start[:, ::_BLOCK] // _BLOCK  # (B, N)
    own = torch.arange(first.shape[1], device=documents.device)  # (N,)
    # Block j of the list of query block i is first[i] + j; what is past the count is not read.
    looked_at = torch.minimum(first[:, :, None] + own, own[:, None])  # (B, N, N)

    def may_look(batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (documents[batch, query] == documents[batch, key]) & (query >= key)

    return BlockMask.from_kv_blocks(
        (own - first + 1)[:, None].int(),  # (B, 1, N)
        looked_at[:, None].int(),  # (B, 1, N, N)
        BLOCK_SIZE=_BLOCK,
        mask_mod=may_look,
        seq_lengths=(length, length),
    )


@cache
def _compiled_flex_attention() -> Any:  # noqa: ANN401 - torch gives it no narrower type
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)
