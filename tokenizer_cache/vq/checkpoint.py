"""Where a training of the image tokenizer stands, so that a killed one goes on bit by bit.

A fit's folder appears whole or not at all, so its checkpoint lies outside the corpus: in this
machine's cache, named by what decides the training, until the training is done.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pipeline.engine.machine_cache import cache_folder
from pipeline.engine.storage import commit_json, committing_folder, read_json

_TENSORS, _STATE = "tensors.safetensors", "state.json"
_RANDOM = "random"


class Checkpoints:
    """The one checkpoint of a training: the newest."""

    def __init__(self, key: str) -> None:
        """`key` is a fingerprint of what decides the training."""
        self._folder = cache_folder() / "models" / f"vq-training-{key}"

    def save(
        self,
        networks: Mapping[str, nn.Module],
        optimizer: Optimizer,
        schedule: LRScheduler,
        progress: dict[str, Any],
    ) -> None:
        """Commit weights, moments, schedule and the generator's state, with JSON of the caller."""
        tensors = {
            f"{network}.{name}": value
            for network, module in networks.items()
            for name, value in module.state_dict().items()
        }
        for number, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in moments.items()}
        tensors[_RANDOM] = torch.get_rng_state()
        with committing_folder(self._folder) as temporary:
            save_file({k: v.contiguous() for k, v in tensors.items()}, temporary / _TENSORS)
            state = {"progress": progress, "schedule": schedule.state_dict()}
            commit_json(temporary / _STATE, state)

    def restore(
        self, networks: Mapping[str, nn.Module], optimizer: Optimizer, schedule: LRScheduler
    ) -> dict[str, Any] | None:
        """Put a training where the checkpoint left it; what its caller gave, None without one."""
        if not (self._folder / _STATE).exists():
            return None
        tensors = load_file(self._folder / _TENSORS)
        state = read_json(self._folder / _STATE)
        for network, module in networks.items():
            module.load_state_dict(_under(f"{network}.", tensors))
        schedule.load_state_dict(state["schedule"])
        parameters: list[nn.Parameter] = []
        for group, rate in zip(optimizer.param_groups, schedule.get_last_lr(), strict=True):
            group["lr"] = rate
            parameters += group["params"]
        for number, parameter in enumerate(parameters):
            moments = _under(f"optimizer.{number}.", tensors)
            optimizer.state[parameter] = {
                # In the parameter's own memory format, as the optimizer made them.
                name: torch.empty_like(parameter).copy_(value) if value.ndim else
                value.to(parameter.device)
                for name, value in moments.items()
            }  # fmt: skip
        torch.set_rng_state(tensors[_RANDOM])
        progress: dict[str, Any] = state["progress"]
        return progress

    def remove(self) -> None:
        """The training is done."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
