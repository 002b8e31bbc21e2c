"""One cross-entropy over the whole sequence, and its parts by modality.

Legend: N tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.packing import NO_TARGET


def token_losses(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of each token, and the log-normaliser behind it.

    One pass gives both, where `cross_entropy` and a z-loss beside it would take two.

    Args:
        logits: (N, V) float.
        targets: (N,) int64; the loss is 0 where it is `NO_TARGET`.

    Returns:
        (N,) nats, and (N,) log-normaliser.
    """
    log_normaliser = logits.logsumexp(dim=-1)  # (N,)
    counted = targets != NO_TARGET
    chosen = logits.gather(1, targets.clamp(min=0)[:, None])[:, 0]  # (N,)
    return torch.where(counted, log_normaliser - chosen, 0.0), log_normaliser


def training_loss(
    logits: Tensor, targets: Tensor, weights: Tensor, *, z_loss: float
) -> tuple[Tensor, Tensor]:
    """What is minimised, and the plain loss of each token.

    The z-loss keeps the log-normaliser near 0, where float precision is best (Chameleon, arXiv
    2405.09818, section 2.2).

    Args:
        logits: (N, V) float.
        targets: (N,) int64.
        weights: (N,) float32, what each target counts; 0 where there is none.
        z_loss: weight of the squared log-normaliser.

    Returns:
        A scalar in nats per token, and (N,) nats without gradient.
    """
    losses, log_normaliser = token_losses(logits, targets)
    total = weights.sum().clamp(min=1e-9)  # nothing is left where all documents are damaged
    penalty = (log_normaliser.square() * weights).sum() / total
    return (losses * weights).sum() / total + z_loss * penalty, losses.detach()


def mean_by_modality(
    losses: Tensor, targets: Tensor, modalities: Mapping[str, range]
) -> dict[str, float]:
    """Mean nats per token of each modality that occurs, and of all tokens together.

    Args:
        losses: (N,) nats.
        targets: (N,) int64 ids.
        modalities: the ids of each modality.
    """
    means = {}
    for name, ids in modalities.items():
        inside = (targets >= ids.start) & (targets < ids.stop)
        if inside.any():
            means[name] = float(losses[inside].mean())
    return means | {"all": float(losses[targets != NO_TARGET].mean())}
