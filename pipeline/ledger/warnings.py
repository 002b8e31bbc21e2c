"""What a person should know of a corpus that no stage can refuse to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.calibration import WEAK_AUC, describe_auc, read_calibration
from pipeline.engine.corpus import Corpus
from pipeline.engine.libraries import mixed_libraries
from pipeline.ledger.losses import losses
from pipeline.selection.settings import SelectSettings

_FEW_PAIRS = 500
"""Ours: the small CLIP tells its captions apart on 3,400 drawings, not on some hundred."""


def warnings(corpus: Corpus) -> list[str]:
    """One sentence for each; none where all is well."""
    return [*losses(corpus), *score_warnings(corpus), *_version_warnings(corpus)]


def score_warnings(corpus: Corpus) -> list[str]:
    """Those that are about scores; they name no record and no place."""
    found = read_calibration(corpus)
    if found is None or not found["is_weak"]:
        return []
    select = SelectSettings.model_validate(corpus.recipe["select"])
    return [_weak(found, select, corpus.recipe["score"]["clip"]["kind"])]


def _version_warnings(corpus: Corpus) -> Iterator[str]:
    if mixed := mixed_libraries(corpus.root):
        yield (
            f"several versions have worked on this corpus ({'; '.join(mixed)}), and what they give "
            "can differ a little. Parts that are committed stay as they are: to have all of them "
            "from one version, fill a new corpus."
        )


def _weak(found: Mapping[str, Any], select: SelectSettings, kind: str) -> str:
    told = (
        f"clip_score is too weak to filter by: it {describe_auc(found)}, and the interval should"
        f" lie above {WEAK_AUC}."
    )
    if "clip_score" not in select.scores():
        return told
    better = "take another score.clip"
    if kind == "trained":
        is_small = found["num_pairs"] < _FEW_PAIRS
        more = f"more than {_FEW_PAIRS} pictures" if is_small else "more steps (score.clip.steps)"
        better = f"give it {more}, take a published one (score.clip.kind: open_clip)"
    return (
        f"{told} What is selected by it leaves out good pairs and keeps wrong ones: {better}, or"
        " take it out of select."
    )
