"""What a person should know of a corpus that no stage can refuse to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.calibration import WEAK_AUC, describe_auc, read_calibration
from pipeline.engine.corpus import Corpus
from pipeline.selection.settings import SelectSettings
from pipeline.synthesis.outcome import kinds_without_texts


def warnings(corpus: Corpus) -> list[str]:
    """One sentence for each; none where all is well."""
    told = kinds_without_texts(corpus)
    found = read_calibration(corpus)
    if found is None or not found["is_weak"]:
        return told
    select = SelectSettings.model_validate(corpus.recipe["select"])
    return [*told, _weak(found, select, corpus.recipe["score"]["clip"]["kind"])]


def _weak(found: Mapping[str, Any], select: SelectSettings, kind: str) -> str:
    told = (
        f"clip_score is too weak to filter by: it {describe_auc(found)}, and the interval should"
        f" lie above {WEAK_AUC}."
    )
    if "clip_score" not in select.scores():
        return told
    better = "train longer (score.clip.steps)" if kind == "trained" else "take another score.clip"
    return (
        f"{told} What is selected by it leaves out good pairs and keeps wrong ones: {better}, or"
        " take it out of select."
    )
