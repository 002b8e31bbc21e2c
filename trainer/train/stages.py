"""The stages of a run: what is frozen, how the loss counts and what the mix is, step by step.

A step alone decides its stage, so that a run resumes in the right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from trainer.settings import StageSettings, TrainSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stretch of steps.

    Attributes:
        number: from 0.
        end: the first step after it.
        settings: what its loader reads with. Each stage has an order of its own, as another mix
            would else have to make up for what the one before it has given.
        frozen: parts of the decoder that do not learn.
        learning_rate_scale: factor of both learning rates.
    """

    number: int
    end: int
    settings: TrainSettings
    frozen: frozenset[str]
    learning_rate_scale: float


def stages_of(settings: TrainSettings) -> tuple[Stage, ...]:
    """The stages of a run in their order; one where the recipe names none."""
    stages: list[Stage] = []
    end = 0
    for number, each in enumerate(settings.stages or (StageSettings(steps=settings.steps),)):
        end += each.steps
        changes = {
            "seed": settings.seed + number,
            "mix": each.mix or settings.mix,
            "tasks": each.tasks or settings.tasks,
            "loss": each.loss or settings.loss,
        }
        stages.append(
            Stage(
                number=number,
                end=end,
                settings=settings.model_copy(update=changes),
                frozen=frozenset(each.freeze),
                learning_rate_scale=each.learning_rate_scale,
            )
        )
    return tuple(stages)


def stage_at(stages: Sequence[Stage], step: int) -> Stage:
    """The stage of a step, counted from 0."""
    return next((stage for stage in stages if step < stage.end), stages[-1])


def freeze(model: nn.Module, parts: frozenset[str]) -> None:
    """Have only the other parts of a model learn; what learns again has kept its momentum."""
    for name, part in model.named_children():
        part.requires_grad_(name not in parts)
