"""Functions that torch has only as several operations on a CPU, each a pass over memory.

Measured on one core, forward and backward of 2,048 tokens: the norm of 256 wide vectors takes 1.6
ms and `F.rms_norm` 4.1 ms; the squared ReLU of 1,024 wide ones takes 5.4 ms and
`F.relu(x).square()` 10.2 ms.

Legend: D width of a vector.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def norm(x: Tensor) -> Tensor:
    """RMSNorm over the last dimension, without a weight."""
    if x.is_cuda:
        return F.rms_norm(x, (x.shape[-1],))
    out: Tensor = _RMSNorm.apply(x)
    return out


def squared_relu(x: Tensor) -> Tensor:
    """The square of what is above 0, and 0 elsewhere (So et al., Primer, arXiv 2109.08668)."""
    out: Tensor = _SquaredReLU.apply(x)
    return out


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ANN401 - torch gives it no type
        mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        scale = mean_square.add_(torch.finfo(x.dtype).eps).rsqrt_()  # (..., 1)
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        y, scale = ctx.saved_tensors
        along = torch.linalg.vecdot(gradient, y).unsqueeze(-1).div_(y.shape[-1])  # (..., 1)
        return torch.addcmul(gradient, y, along, value=-1).mul_(scale)


class _SquaredReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ANN401 - torch gives it no type
        above = F.relu(x)
        ctx.save_for_backward(above)
        return above.square()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        (above,) = ctx.saved_tensors
        return (gradient * above).mul_(2)
