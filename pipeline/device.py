"""Where a model runs, and on how many threads; the only place that asks for CUDA.

What is set here holds for the whole process, so it is set for a `with` block and then put back: the
process may be somebody's notebook, or do a training next.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
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


WAITING_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000"}
"""How OpenMP's threads wait for each other (libgomp's, which torch has; a count, not a time).
Threads that spin take the cores from whatever else runs: beside another engine, the LLM writes 5
tokens a second instead of 40. One that sleeps at once is late for every layer: 204 instead of 239.
"""


def let_threads_sleep() -> None:
    """Have this process's OpenMP threads sleep soon when they wait, or as the environment says.

    OpenMP reads these variables when torch is imported, so this comes before that.
    """
    if not WAITING_THREADS.keys() & os.environ.keys():
        os.environ.update(WAITING_THREADS)


@contextmanager
def use_threads(num_threads: int) -> Iterator[None]:
    """`num_threads` of torch's intra-op parallelism in a `with` block.

    Sums are split by thread, so a fixed number is what makes a stage's output the same bytes
    whether one worker or four run it.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def use_all_cores() -> AbstractContextManager[None]:
    """The whole machine for a fit; the same number of cores gives the same bytes."""
    return use_threads(os.cpu_count() or 1)


@contextmanager
def keeping_random_state() -> Iterator[None]:
    """A `with` block that may draw torch's random numbers on the CPU, as loading a model does."""
    import torch

    with torch.random.fork_rng(devices=[]):  # a GPU's would open a context on it
        yield


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's random numbers from `seed` in a `with` block, those of the best device included."""
    import torch

    devices = [torch.cuda.current_device()] if best_device().type == "cuda" else []  # noqa: TID251
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
