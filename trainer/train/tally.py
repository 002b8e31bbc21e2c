"""Sums of losses by task and by the modality of what is predicted; a task has one stream.

Legend: N tokens, K tasks, M modalities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from trainer.data.packing import NO_TARGET, Row
from trainer.data.tasks import STREAM_OF_TASK

_NUMBERS = {task: number for number, task in enumerate(STREAM_OF_TASK)}


class Tally:
    """What some tokens cost, and how many there were."""

    def __init__(self, modalities: Sequence[str], sums: np.ndarray) -> None:
        """Take over sums.

        Args:
            modalities: M names.
            sums: (2, K, M) float64, nats and numbers of targets, by the tasks' order in
                `STREAM_OF_TASK`.
        """
        self._modalities = modalities
        self._sums = sums

    @classmethod
    def of(
        cls, losses: Tensor, targets: Tensor, rows: Sequence[Row], modalities: Mapping[str, range]
    ) -> Self:
        """Count the tokens of some rows, in one pass over them.

        Args:
            losses: (N,) nats of the rows' tokens, one row after another.
            targets: (N,) int64 ids.
            rows: of at least one document each, or of padding.
            modalities: the ids of each modality, in ascending order and without gaps.
        """
        tasks = torch.from_numpy(np.concatenate([_task_numbers(row) for row in rows]))  # (N,)
        starts = torch.tensor([ids.start for ids in modalities.values()], device=targets.device)
        kinds = torch.bucketize(targets.clamp(min=0), starts, right=True) - 1  # (N,)
        kinds += tasks.to(targets.device) * len(modalities)
        is_target = targets != NO_TARGET
        each = torch.stack((torch.where(is_target, losses.double(), 0.0), is_target.double()))
        sums = each.new_zeros(2, len(_NUMBERS) * len(modalities)).index_add_(1, kinds, each)
        return cls(tuple(modalities), sums.cpu().numpy().reshape(2, len(_NUMBERS), -1))

    @classmethod
    def empty(cls, modalities: Mapping[str, range]) -> Self:
        """No tokens."""
        return cls(tuple(modalities), np.zeros((2, len(_NUMBERS), len(modalities))))

    def __add__(self, other: Self) -> Self:
        return type(self)(self._modalities, self._sums + other._sums)

    def means(self) -> dict[str, float]:
        """Mean nats a token of each modality that occurs, and of `all` tokens together.

        Nothing where no token has a target.
        """
        nats, counts = self._sums.sum(axis=1)  # (M,) each
        means = {
            name: float(nats[n] / counts[n]) for n, name in enumerate(self._modalities) if counts[n]
        }
        return means | {"all": float(nats.sum() / counts.sum())} if means else {}

    def counts(self) -> dict[str, int]:
        """How many targets of each modality there are; those that have none are left out."""
        counts = self._sums[1].sum(axis=0)  # (M,)
        return {name: int(counts[n]) for n, name in enumerate(self._modalities) if counts[n]}

    def by_stream(self) -> dict[str, Self]:
        """The part of each stream that has targets."""
        return self._parts(list(STREAM_OF_TASK.values()))

    def by_task(self) -> dict[str, Self]:
        """The part of each task that has targets."""
        return self._parts(list(STREAM_OF_TASK))

    def _parts(self, names: Sequence[str]) -> dict[str, Self]:
        """The parts of a name each, of K names."""
        owners = np.array(names)
        parts = {
            name: type(self)(self._modalities, self._sums[:, owners == name])
            for name in dict.fromkeys(names)
        }
        return {name: part for name, part in parts.items() if part._sums[1].any()}


def _task_numbers(row: Row) -> np.ndarray:
    """(T,) int64, the number of each token's task; 0 where there is no document."""
    return np.array([0, *(_NUMBERS[task] for task in row.tasks)])[row.documents]
