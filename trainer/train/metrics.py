"""What a line of `metrics.jsonl` says; docs/training.md explains each figure.

Legend: B rows, T tokens, D model width, V vocabulary.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.data.batch import Batch
from trainer.model.decoder import Attention, Decoder
from trainer.train.tally import Tally

if TYPE_CHECKING:
    from trainer.train.trainer import StepResult, Trainer

_PEAK_S = 0.2
"""How long the peak of the device is measured."""
_MAX_LOGIT_ROWS = 1024
"""Tokens whose logits are looked at; with 119,000 ids they take 465 MiB."""


def describe_step(
    trainer: Trainer, result: StepResult, *, num_tokens: int, peak_flops: float
) -> dict[str, Any]:
    """The line of a step.

    Args:
        trainer: after the step.
        result: of the step.
        num_tokens: tokens of documents in all steps so far.
        peak_flops: of the device, from `measure_peak_flops`.
    """
    tokens_per_s = result.num_tokens / result.seconds
    tally = result.tally
    by_stream, by_task = tally.by_stream(), tally.by_task()
    line = {
        "step": trainer.step,
        "tokens": num_tokens,
        "tokens_per_s": round(tokens_per_s, 1),
        "mfu": round(tokens_per_s * trainer.flops_per_token / peak_flops, 4),
        "padding": round(result.padding, 4),
        "train": result.losses,
        "targets": tally.counts(),
        "train_by_stream": {name: part.means() for name, part in by_stream.items()},
        "targets_by_stream": {name: part.counts() for name, part in by_stream.items()},
        "train_by_task": {name: part.means() for name, part in by_task.items()},
        "targets_by_task": {name: part.counts() for name, part in by_task.items()},
        "gradient_norm": result.gradient_norm,
        "learning_rate_scale": result.learning_rate_scale,
    }
    line |= {"alignment": result.alignment} if result.alignment else {}
    return line | ({"stage": result.stage} if trainer.settings.stages else {})


def describe_look(trainer: Trainer, tally: Tally) -> dict[str, Any]:
    """What the line of a step says besides, where held-out rows were looked at.

    Args:
        trainer: after the step.
        tally: from `Trainer.evaluate`.
    """
    loader = trainer.loader
    line = {
        "held_out": tally.means() | trainer.held_out_alignment(),
        "held_out_by_stream": {name: part.means() for name, part in tally.by_stream().items()},
        "norms": trainer.norms(),
        "shares": loader.achieved_shares(),
        "epochs": loader.epochs(),
    }
    counts = {"bad": loader.num_bad, "left_out": loader.left_out()}
    return line | {name: count for name, count in counts.items() if count}


@torch.no_grad()
def measure_norms(model: Decoder, batch: Batch) -> dict[str, float]:
    """How large the numbers inside a model are; those that grow without end precede a spike.

    Returns:
        `q` and `k`: root mean square of the queries and keys before they are normalised, of the
        block where it is largest; `logits` and `largest_logit`: root mean square and largest
        absolute value of the logits of the batch's first tokens.
    """
    found: dict[str, float] = {"q": 0.0, "k": 0.0}

    def watch(name: str, projection: nn.Module, stack: ExitStack) -> None:
        def keep(_module: nn.Module, _given: object, out: Tensor) -> None:
            found[name] = max(found[name], _root_mean_square(out))

        stack.callback(projection.register_forward_hook(keep).remove)

    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, Attention):
                watch("q", module.q, stack)
                watch("k", module.k, stack)
        hidden = batch.hidden(model).flatten(0, 1)[:_MAX_LOGIT_ROWS]  # (B * T, D)
    logits = F.linear(hidden, model.head.weight)  # (B * T, V)
    found["logits"] = _root_mean_square(logits)
    found["largest_logit"] = float(logits.abs().max())
    return {name: round(value, 4) for name, value in found.items()}


def flops_per_token(model: Decoder) -> int:
    """Floating-point operations that a token's forward and backward passes need in the matrices.

    6 a weight (Kaplan et al., Scaling Laws, arXiv 2001.08361, section 2.1) of the blocks and the
    head; embeddings are looked up, and the attention's scores are left out.
    """
    blocks = sum(parameter.numel() for parameter in model.blocks.parameters())
    return 6 * (blocks + model.head.weight.numel())


def measure_peak_flops(device: torch.device, width: int) -> float:
    """Floating-point operations a second of the fastest of many products as wide as the model's.

    In bfloat16 on CUDA and in float32 elsewhere, as the training.

    Args:
        device: where to measure.
        width: D.
    """
    is_cuda = device.type == "cuda"
    num_rows, dtype = (16_384, torch.bfloat16) if is_cuda else (512, torch.float32)
    left = torch.ones(num_rows, width, device=device, dtype=dtype)
    right = torch.ones(width, 4 * width, device=device, dtype=dtype)
    least = float("inf")
    until = time.monotonic() + _PEAK_S
    while time.monotonic() < until:
        began = time.perf_counter()
        float((left @ right)[0, 0])  # waits for the device
        least = min(least, time.perf_counter() - began)
    return 2 * left.numel() * right.shape[1] / least


def _root_mean_square(x: Tensor) -> float:
    return float(x.float().square().mean().sqrt())
