"""What a run needs to resume: weights, their moving average, optimiser state, the loader's place.

A checkpoint is a folder `checkpoint/step-NNNNNN` with safetensors files and `state.json`. It
appears whole, and older ones are removed only then, so that a crash at any instant leaves one to
resume from. No generator's state is kept: the weights are drawn once, and all later choices are
hashes. On a CPU a resumed run equals an undisturbed one bit for bit; on CUDA, where some kernels
add in any order, up to rounding.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.engine.storage import commit_json, committing_folder, read_json
from pipeline.errors import UserError

CHECKPOINTS = "checkpoint"
FORMAT = 2
"""Raised when other code is needed to read a checkpoint."""

AVERAGE = "average.safetensors"

_MODEL, _OPTIMIZER = "model.safetensors", "optimizer.safetensors"
_STATE = "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A run after a number of steps.

    Attributes:
        step: optimiser steps done.
        decided: what decides the run, by name; two runs with the same are the same run.
        settings: the `TrainSettings`, as JSON.
        loader: state of the loader, as JSON.
        held_out: nats per held-out token with the averaged weights, or the loss of an alignment on
            held-out rows; None where it was not measured at this step.
        model: weights by name.
        average: moving average of the weights by name, which is what a run is used with.
        optimizer: optimiser state by name.
    """

    step: int
    decided: Mapping[str, Any]
    settings: Mapping[str, Any]
    loader: Mapping[str, Any]
    held_out: float | None
    model: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]


def save_checkpoint(run: Path, checkpoint: Checkpoint, *, num_kept: int, decay_step: int) -> None:
    """Commit a checkpoint, then remove those that are kept no longer.

    Args:
        run: the run's folder.
        checkpoint: what to save.
        num_kept: how many of the newest stay. Besides these, the best by held-out loss stays, and
            the last one before the learning rate decays, from which a longer run can go on.
        decay_step: the step from which the learning rate decays.
    """
    folder = run / CHECKPOINTS / f"step-{checkpoint.step:06}"
    with committing_folder(folder) as temporary:
        for name, tensors in (
            (_MODEL, checkpoint.model),
            (AVERAGE, checkpoint.average),
            (_OPTIMIZER, checkpoint.optimizer),
        ):
            save_file({key: each.contiguous() for key, each in tensors.items()}, temporary / name)
        state = {
            "format": FORMAT,
            "step": checkpoint.step,
            "decided": dict(checkpoint.decided),
            "settings": dict(checkpoint.settings),
            "loader": dict(checkpoint.loader),
            "held_out": checkpoint.held_out,
        }
        commit_json(temporary / _STATE, state)
    for each in set(_folders(run)) - _kept(run, num_kept, decay_step):
        shutil.rmtree(each)


def newest_checkpoint(run: Path) -> Path | None:
    """The folder of a run's newest checkpoint, to resume from; None without one."""
    return max(_folders(run), key=_step, default=None)


def best_checkpoint(run: Path) -> Path | None:
    """The checkpoint with the least held-out loss; the newest where none was measured."""
    measured = {folder: loss for folder in _folders(run) if (loss := _held_out(folder)) is not None}
    return min(measured, key=lambda folder: (measured[folder], _step(folder)), default=None) or (
        newest_checkpoint(run)
    )


def discard_checkpoints(run: Path) -> None:
    """Remove all checkpoints of a run, and what killed saves have left."""
    shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)


def remove_unfinished(run: Path) -> None:
    """Remove what saves that were killed have left."""
    whole = set(_folders(run))
    for path in (run / CHECKPOINTS).glob("*"):
        if path not in whole:
            shutil.rmtree(path)


def read_state(folder: Path) -> dict[str, Any]:
    """All of a checkpoint but its tensors.

    Raises:
        UserError: when another version of anymix wrote it.
    """
    state: dict[str, Any] = read_json(folder / _STATE)
    if state.pop("format", 1) != FORMAT:
        raise UserError(
            f"{folder} was written by another version of anymix",
            "Use that version for this run, or train again: --fresh, or another --out.",
        )
    return state


def read_average(folder: Path) -> dict[str, Tensor]:
    """The averaged weights in a checkpoint."""
    return load_file(folder / AVERAGE)


def read_checkpoint(folder: Path) -> Checkpoint:
    """All of a checkpoint."""
    return Checkpoint(
        **read_state(folder),
        model=load_file(folder / _MODEL),
        average=read_average(folder),
        optimizer=load_file(folder / _OPTIMIZER),
    )


def _kept(run: Path, num_kept: int, decay_step: int) -> set[Path]:
    in_order = sorted(_folders(run), key=_step)
    before_decay = [folder for folder in in_order if _step(folder) <= decay_step]
    best = best_checkpoint(run)
    return {*in_order[-num_kept:], *before_decay[-1:], *([best] if best else [])}


def _held_out(folder: Path) -> float | None:
    loss: float | None = read_state(folder)["held_out"]
    return loss


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _folders(run: Path) -> list[Path]:
    return [path for path in (run / CHECKPOINTS).glob("step-*") if (path / _STATE).exists()]
