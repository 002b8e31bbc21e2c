"""Muon for the blocks' matrices, AdamW for the rest, and the schedule of both."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainer.settings import TrainSettings

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Jordan, Muon, 2024: the quintic whose slope at 0 is steepest."""
_NUM_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is made near-orthogonal before each step (Jordan et al., Muon, 2024).

    `torch.optim.Muon` (2.14) works in bfloat16, which a CPU without AVX-512 emulates: two 256 x 256
    matrices take it 0.64 s there, and this one 0.07 s. With AVX-512-BF16 it is 2.3 times as fast as
    this one, but then the weights would depend on the CPU's kind.
    """

    def __init__(
        self, params: Iterable[Tensor], *, lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override] # a closure has no use here
        """Update the parameters from their gradients."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Any]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, parameters in by_shape.items():
                updates = [
                    self._nesterov(parameter, parameter.grad, group["momentum"])
                    for parameter in parameters
                ]
                directions = orthogonalise(torch.stack(updates))
                # Tall matrices take longer steps, so that the change of an output stays the same.
                step = group["lr"] * max(1, shape[0] / shape[1]) ** 0.5
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(direction, alpha=step)

    def _nesterov(self, parameter: Tensor, gradient: Tensor, momentum: float) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        average = state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(average, momentum)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Matrices with the same singular vectors and all singular values near 1.

    Five Newton-Schulz steps; the values end between 0.7 and 1.2. A step multiplies a matrix by a
    polynomial of its Gram matrix, and the polynomials commute. So where a matrix is not square,
    they are multiplied first, and the long side is read twice instead of ten times: eight 256 x
    1,024 matrices take 105 ms of a core and not 187.

    Args:
        matrices: (n, rows, columns) float.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    if x.shape[1] == x.shape[2]:
        for _ in range(_NUM_STEPS):
            x = _polynomial(x @ x.mT) @ x
        return x
    gram = x @ x.mT
    product = factor = _polynomial(gram)
    for _ in range(_NUM_STEPS - 1):
        gram = factor @ gram @ factor
        factor = _polynomial(gram)
        product = factor @ product
    x = product @ x
    return x.mT if is_tall else x


def _polynomial(gram: Tensor) -> Tensor:
    """What a Newton-Schulz step multiplies a matrix by, of its Gram matrix (n, side, side)."""
    a, b, c = _NEWTON_SCHULZ
    factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal(dim1=1, dim2=2).add_(a)
    return factor


class Optimizers:
    """The two optimisers of a model as one."""

    def __init__(self, model: nn.Module, settings: TrainSettings) -> None:
        self._names: dict[Tensor, str] = {
            parameter: name for name, parameter in model.named_parameters()
        }
        # Muon is for matrices between hidden states; gates and scales of a block are none, and the
        # rows of embeddings and heads are updated apart.
        matrices = [p for p, name in self._names.items() if _is_hidden_matrix(name, p)]
        others = [p for p, name in self._names.items() if not _is_hidden_matrix(name, p)]
        self._all = (
            Muon(matrices, lr=settings.matrix_learning_rate, weight_decay=settings.weight_decay),
            torch.optim.AdamW(
                others,
                lr=settings.learning_rate,
                betas=(0.9, 0.95),
                eps=1e-10,
                weight_decay=0.0,
                fused=all(each.device.type == "cpu" for each in others) or None,
            ),
        )
        self._peaks = (settings.matrix_learning_rate, settings.learning_rate)

    def step(self, scale: float) -> None:
        """Update the parameters at `scale` times the peak learning rates, and clear gradients."""
        for optimizer, peak in zip(self._all, self._peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = scale * peak
            optimizer.step()
        self.zero_grad()

    def zero_grad(self) -> None:
        """Clear the gradients."""
        for optimizer in self._all:
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Tensor]:
        """The state of every parameter, as `parameter:entry`."""
        return {
            f"{self._names[parameter]}:{entry}": value
            for optimizer in self._all
            for parameter, state in optimizer.state.items()
            for entry, value in state.items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Resume with the state that `state_dict` gave for the same model.

        Each entry goes to its parameter's device, except AdamW's step counts, which torch keeps on
        the CPU.

        Raises:
            ValueError: when a state has no parameter. A parameter without a state has not learnt
                yet, as it was frozen.
        """
        owners = {
            self._names[parameter]: (optimizer, parameter)
            for optimizer in self._all
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        given = {key.partition(":")[0] for key in state}
        if unknown := sorted(given - set(owners)):
            raise ValueError(f"optimiser state of unknown parameters: {unknown}")
        for key, value in state.items():
            name, _, entry = key.partition(":")
            optimizer, parameter = owners[name]
            device = parameter.device if value.ndim else value.device
            optimizer.state[parameter][entry] = value.to(device, copy=True)


def _is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    return name.startswith("blocks.") and parameter.ndim == 2


def learning_rate_scale(step: int, settings: TrainSettings) -> float:
    """The learning rate of a step (from 0) as a share of its peak: up, level, down."""
    num_warmup = settings.warmup * settings.steps
    num_falling = settings.steps - decay_step(settings)
    rise = (step + 1) / num_warmup if num_warmup else 1.0
    left = min(1.0, (settings.steps - step) / num_falling) if num_falling else 1.0
    fall = left if settings.schedule == "wsd" else (1 - math.cos(math.pi * left)) / 2
    lowest = settings.min_learning_rate
    return min(1.0, rise) * (lowest + (1 - lowest) * fall)


def decay_step(settings: TrainSettings) -> int:
    """The number of steps that come before the learning rate begins to fall."""
    level = settings.warmup if settings.schedule == "cosine" else 1 - settings.warmdown
    return round(settings.steps * level)
