"""CLIP as a critic: how much less a text fits the picture than the record's own caption does.

The scores come from a model that `filters` has; here is only what they mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from pipeline.synthesis.critics.candidate import Verdict, judged
from pipeline.synthesis.critics.settings import CriticSettings

REASON = "synthesis-clip-loss"

OWN = "original"
"""The key of the score of the record's own caption, beside those of the forms."""


def write_clip_scores(scores: Mapping[str, float]) -> str:
    """Scores by form, and `OWN`, as an answer keeps them."""
    return json.dumps({name: round(score, 6) for name, score in scores.items()})


def parse_clip_scores(answer: str, form: str, settings: CriticSettings) -> Verdict | None:
    """What the scores say of the text of a form; None where it has none."""
    scores = json.loads(answer)
    if form not in scores or settings.max_clip_loss is None:
        return None
    return judged(
        "clip",
        scores[form],
        threshold=scores[OWN] - settings.max_clip_loss,
        reason=REASON,
        detail="it does not fit the picture",
    )
