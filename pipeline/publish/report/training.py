"""What a run's folder says about the training of its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.engine.storage import read_json, read_json_lines
from pipeline.errors import UserError
from pipeline.publish.report import figures

_NUM_POINTS = 120
"""Points of a training curve; each is a mean over equally many steps."""


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
        mix_unit: what the asked shares count, `tokens` or `samples`.
        mix: for each stream the share that was asked for, and those of tokens and of samples that
            were read.
        evaluation: what `evaluation.json` holds, or None.
    """

    folder: str
    num_steps: int
    num_tokens: int
    tokens_per_s: float
    held_out_loss: float | None
    charts: Sequence[tuple[str, str]]
    mix_unit: str
    mix: Sequence[tuple[str, float | None, float, float]]
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
        charts=[
            (name, _chart(steps, looks, name))
            for name in ("image", "audio", "text")
            if any(name in step["train"] for step in steps)
        ],
        mix_unit=_wanted_mix(run).get("unit", "tokens"),
        mix=_mix(run, looks[-1]["shares"]) if looks else [],
        evaluation=evaluation,
    )


def _chart(
    steps: Sequence[Mapping[str, Any]], looks: Sequence[Mapping[str, Any]], modality: str
) -> str:
    trained = [(s["tokens"], s["train"][modality]) for s in steps if modality in s["train"]]
    held_out = [(s["tokens"], s["held_out"][modality]) for s in looks if modality in s["held_out"]]
    lines = [figures.Line(label="training", points=_thin(trained), colour="other")]
    if held_out:
        lines.append(figures.Line(label="held out", points=held_out, colour="kept-1"))
    last = f", at last {held_out[-1][1]:.3f} held out" if held_out else ""
    return figures.line_chart(
        lines,
        x_label="tokens",
        y_label="nats per token",
        description=f"Loss of {modality} tokens over the training{last}",
    )


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points as means over runs of them, at most `_NUM_POINTS`."""
    size = -(-len(points) // _NUM_POINTS)
    runs = [points[start : start + size] for start in range(0, len(points), size)]
    return [(run[-1][0], sum(y for _, y in run) / len(run)) for run in runs]


def _mix(
    run: Path, achieved: Mapping[str, Mapping[str, float]]
) -> list[tuple[str, float | None, float, float]]:
    wanted = {name: share for name, share in _wanted_mix(run).items() if name != "unit"}
    total = sum(wanted.get(stream, 0) for stream in achieved["tokens"]) or 1
    return [
        (stream, wanted[stream] / total if wanted else None, share, achieved["samples"][stream])
        for stream, share in achieved["tokens"].items()
    ]


def _wanted_mix(run: Path) -> dict[str, Any]:
    """The mix of the run's recipe; empty where it has none."""
    path = run / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    return dict(recipe["train"]["mix"]) if recipe else {}
