"""The section that says what the CLIP score is worth: true, shuffled and hard negative pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline import words
from pipeline.publish.rendering import percent
from pipeline.publish.report import figures

_GROUPS = {
    "shuffled": ("shuffled pairs", "other"),
    "negative": ("hard negatives", "lost"),
    "true": ("true pairs", "kept-1"),
}
"""In the order in which they are drawn, the last on top: label and class of the style sheet."""


def chart(found: Mapping[str, Any] | None, cut: float | None) -> str | None:
    """The scores of each group as shares of it, with the suggested cut and the recipe's own.

    Args:
        found: as `pipeline.calibration.calibrate` gives it; None without pairs.
        cut: the least CLIP score of the recipe, or None.
    """
    if not found:
        return None
    groups = [
        (
            label,
            [100 * count / sum(found["counts"][name]) for count in found["counts"][name]],
            colour,
        )
        for name, (label, colour) in _GROUPS.items()
        if any(found["counts"][name])
    ]
    suggested = found["cut"]
    marks = []
    if suggested["value"] is not None:
        rate = percent(found["false_accept"])
        marks.append(figures.Mark(label=f"{rate} of the shuffled above", **suggested))
    if cut is not None and cut != suggested["value"]:
        marks.append(figures.Mark(label="recipe's cut", value=cut))
    return figures.histogram(
        found["edges"],
        groups,
        x_label=words.SCORES["clip_score"],
        y_label="% of the pairs",
        marks=marks,
        description=f"CLIP scores of {found['num_pairs']:,} true and as many shuffled pairs",
    )
