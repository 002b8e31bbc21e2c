"""What a run's folder says about the training of its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipeline.engine.storage import read_json, read_json_lines
from pipeline.errors import UserError
from pipeline.publish.report import figures

_NUM_POINTS = 120
"""Points of a training curve; each is a mean over equally many steps."""


class LossCurve(NamedTuple):
    """Nats a token of a modality over the tokens, at each point (tokens, nats).

    Attributes:
        modality: whose.
        trained: means over runs of steps, at most `_NUM_POINTS`.
        held_out: of each look at held-out rows; empty where there was none.
    """

    modality: str
    trained: list[tuple[float, float]]
    held_out: list[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What was read of the streams in a training, or in one of its stages.

    Attributes:
        stage: from 1; None where there are no stages.
        unit: what the asked shares count, `tokens` or `samples`.
        streams: for each stream the share that was asked for, None where no recipe says it, and
            those of tokens and of samples that were read.
    """

    stage: int | None
    unit: str
    streams: Sequence[tuple[str, float | None, float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The training of one model.

    Attributes:
        folder: name of the run's folder.
        num_steps: optimiser steps done.
        num_tokens: tokens seen.
        tokens_per_s: median speed.
        held_out_loss: nats per token over all held-out streams, after the last step; or None.
        charts: modality, and the curve of its loss.
        mixes: of each stage.
        evaluation: what `evaluation.json` holds, or None.
    """

    folder: str
    num_steps: int
    num_tokens: int
    tokens_per_s: float
    held_out_loss: float | None
    charts: Sequence[tuple[str, str]]
    mixes: Sequence[Mix]
    evaluation: Mapping[str, Any] | None


def describe(run: Path) -> Training:
    """The training in a run's folder.

    Raises:
        UserError: when the folder holds none, or its first step is not done.
    """
    steps = read_json_lines(run / "metrics.jsonl")
    if not steps:
        raise UserError(
            f"{run} holds no training: there is no step in its metrics.jsonl.",
            "Name the folder that `anymix train --out` has written.",
        )
    looks = [step for step in steps if step.get("held_out")]
    speeds = sorted(step["tokens_per_s"] for step in steps)
    evaluation = read_json(path) if (path := run / "evaluation.json").exists() else None
    return Training(
        folder=run.name,
        num_steps=steps[-1]["step"],
        num_tokens=steps[-1]["tokens"],
        tokens_per_s=speeds[len(speeds) // 2],
        held_out_loss=looks[-1]["held_out"].get("all") if looks else None,
        charts=[(curve.modality, _chart(curve)) for curve in loss_curves(steps)],
        mixes=_mixes(run, looks),
        evaluation=evaluation,
    )


def loss_curves(steps: Sequence[Mapping[str, Any]]) -> list[LossCurve]:
    """The loss of each modality that was trained on.

    Args:
        steps: the lines of a run's `metrics.jsonl`.
    """
    curves = []
    for name in ("image", "audio", "text"):
        trained, held_out = (
            [(step["tokens"], step[key][name]) for step in steps if name in step.get(key, {})]
            for key in ("train", "held_out")
        )
        if trained:
            curves.append(LossCurve(name, _thin(trained), held_out))
    return curves


def _chart(curve: LossCurve) -> str:
    lines = [figures.Line(label="training", points=curve.trained, colour="other")]
    if curve.held_out:
        lines.append(figures.Line(label="held out", points=curve.held_out, colour="kept-1"))
    last = f", at last {curve.held_out[-1][1]:.3f} held out" if curve.held_out else ""
    return figures.line_chart(
        lines,
        x_label="tokens",
        y_label="nats per token",
        description=f"Loss of {curve.modality} tokens over the training{last}",
    )


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points as means over runs of them, at most `_NUM_POINTS`."""
    size = -(-len(points) // _NUM_POINTS)
    runs = [points[start : start + size] for start in range(0, len(points), size)]
    return [(run[-1][0], sum(y for _, y in run) / len(run)) for run in runs]


def _mixes(run: Path, looks: Sequence[Mapping[str, Any]]) -> list[Mix]:
    """The mix of each stage that was looked at; shares count from a stage's beginning."""
    path = run / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {"train": {}}
    last = {look.get("stage"): look["shares"] for look in looks}
    return [_mix(recipe["train"], stage, shares) for stage, shares in last.items()]


def _mix(
    settings: Mapping[str, Any], stage: int | None, achieved: Mapping[str, Mapping[str, float]]
) -> Mix:
    stages = settings.get("stages") or []
    own = stages[stage]["mix"] if stage is not None and stages else None
    wanted = own or settings.get("mix") or {}
    total = sum(wanted.get(stream, 0) for stream in achieved["tokens"]) or 1
    return Mix(
        stage=None if stage is None else stage + 1,
        unit=wanted.get("unit", "tokens"),
        streams=[
            (stream, wanted[stream] / total if wanted else None, share, achieved["samples"][stream])
            for stream, share in achieved["tokens"].items()
        ],
    )
