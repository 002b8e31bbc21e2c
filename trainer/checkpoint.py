"""What a training needs to go on bit by bit: weights, optimiser state, and where the loader is.

A checkpoint is a folder `checkpoint/step-NNNNNN` with two safetensors files and `state.json`. It
appears whole; the one before it is removed only then, so that a crash at any instant leaves one.
No generator's state is kept: the weights are drawn once, and all later choices are hashes.
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

CHECKPOINTS = "checkpoint"

_MODEL, _OPTIMIZER, _STATE = "model.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A training after a number of steps.

    Attributes:
        step: optimiser steps done.
        fingerprint: of everything that decides the training.
        settings: the `TrainSettings`, as JSON.
        loader: state of the loader, as JSON.
        model: weights by name.
        optimizer: optimiser state by name.
    """

    step: int
    fingerprint: str
    settings: Mapping[str, Any]
    loader: Mapping[str, Any]
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Commit a checkpoint, then remove the older ones."""
    folder = run / CHECKPOINTS / f"step-{checkpoint.step:06}"
    with committing_folder(folder) as temporary:
        save_file(
            {name: t.contiguous() for name, t in checkpoint.model.items()}, temporary / _MODEL
        )
        save_file(dict(checkpoint.optimizer), temporary / _OPTIMIZER)
        state = {
            "step": checkpoint.step,
            "fingerprint": checkpoint.fingerprint,
            "settings": dict(checkpoint.settings),
            "loader": dict(checkpoint.loader),
        }
        commit_json(temporary / _STATE, state)
    for older in _folders(run):
        if older != folder:
            shutil.rmtree(older)


def find_checkpoint(run: Path) -> Path | None:
    """The folder of a run's newest checkpoint, or None."""
    return max(_folders(run), key=_step, default=None)


def read_state(folder: Path) -> dict[str, Any]:
    """`step`, `fingerprint`, `settings` and `loader` of a checkpoint, without its tensors."""
    state: dict[str, Any] = read_json(folder / _STATE)
    return state


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The model's weights in a checkpoint."""
    return load_file(folder / _MODEL)


def read_checkpoint(folder: Path) -> Checkpoint:
    """All of a checkpoint."""
    return Checkpoint(
        **read_state(folder),
        model=read_weights(folder),
        optimizer=load_file(folder / _OPTIMIZER),
    )


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _folders(run: Path) -> list[Path]:
    return [path for path in (run / CHECKPOINTS).glob("step-*") if (path / _STATE).exists()]
