"""One cross-entropy over the whole sequence.

Legend: N tokens, D model width, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from trainer.data.packing import NO_TARGET

MAX_LOGITS = 1 << 26
"""Logits that are in memory at once: 256 MiB of float32. With a vocabulary of 119,000 ids that is
564 tokens; a step of 16,384 tokens would take 7.3 GiB whole, and its gradient as much again."""


def next_token_losses(
    hidden: Tensor, head: Tensor, targets: Tensor, *, max_logits: int = MAX_LOGITS
) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of each target, and the log-normaliser behind it.

    The logits are made in chunks of tokens and again for the gradient, so that they are never whole
    in memory; where one chunk holds all, nothing is made twice. `linear_cross_entropy` of torch
    does the same but keeps the log-normaliser to itself, which the z-loss needs.

    Args:
        hidden: (N, D) float, the input of the head.
        head: (V, D) float, its weight.
        targets: (N,) int64; the loss is 0 where it is `NO_TARGET`.
        max_logits: how many logits may be in memory at once.

    Returns:
        (N,) float32 nats, and (N,) float32 log-normaliser.
    """
    size = max(1, max_logits // len(head))
    if len(hidden) <= size:
        return _losses(hidden, head, targets)
    parts = [
        checkpoint(_losses, hidden[at : at + size], head, targets[at : at + size],
                   use_reentrant=False)
        for at in range(0, len(hidden), size)
    ]  # fmt: skip
    return torch.cat([loss for loss, _ in parts]), torch.cat([norm for _, norm in parts])


def training_loss(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    weights: Tensor,
    *,
    total_weight: float,
    z_loss: float,
    max_logits: int = MAX_LOGITS,
) -> tuple[Tensor, Tensor]:
    """What is minimised, and the plain loss of each token.

    The z-loss keeps the log-normaliser near 0, where float precision is best (Chameleon, arXiv
    2405.09818, section 2.2).

    Args:
        hidden: (N, D) float, the input of the head.
        head: (V, D) float, its weight.
        targets: (N,) int64.
        weights: (N,) float32, what each target counts; 0 where there is none.
        total_weight: the sum of the weights of the whole step, of which these tokens may be a part.
        z_loss: weight of the squared log-normaliser.
        max_logits: how many logits may be in memory at once.

    Returns:
        A scalar, whose sum over the parts of a step is in nats per token; and (N,) float32 nats
        without gradient.
    """
    losses, log_normaliser = next_token_losses(hidden, head, targets, max_logits=max_logits)
    penalised = losses + z_loss * log_normaliser.square()
    return (penalised * weights).sum() / total_weight, losses.detach()


def _losses(hidden: Tensor, head: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = F.linear(hidden, head).float()  # (N, V)
    there = targets.clamp(min=0)  # (N,)
    losses = F.cross_entropy(logits, there, reduction="none")  # (N,)
    # Fewer passes over the logits than with `logsumexp`.
    log_normaliser = losses + logits.gather(1, there[:, None])[:, 0]  # (N,)
    return torch.where(targets != NO_TARGET, losses, 0.0), log_normaliser
