"""Where a model runs; the only place that asks for CUDA."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def best_device() -> torch.device:
    """The first CUDA device that this process may use, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")  # noqa: TID251


def num_visible_gpus() -> int:
    """How many CUDA devices this process sees; 0 without a driver."""
    import torch

    return torch.cuda.device_count()  # noqa: TID251


def use_threads(num_threads: int) -> None:
    """Pin this process to `num_threads` of intra-op parallelism.

    Sums are split by thread, so a fixed number is what makes a stage's output the same bytes
    whether one worker or four run it.
    """
    import torch

    torch.set_num_threads(num_threads)


def use_all_cores() -> None:
    """Let a fit use the whole machine; the same number of cores gives the same bytes."""
    use_threads(os.cpu_count() or 1)
