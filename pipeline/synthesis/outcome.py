"""What has come of the LLM's work, where that is nothing."""

from __future__ import annotations

from pipeline.engine.corpus import Corpus
from pipeline.synthesis.forms import KINDS
from pipeline.synthesis.judge import STAGE
from pipeline.synthesis.prompts import shorten
from pipeline.words import REASONS

_REFUSED = """
    SELECT kind, reason, count(*) AS num, min(detail) AS example FROM rejects
    WHERE stage = ? AND kind NOT IN (SELECT kind FROM variants)
    GROUP BY kind, reason ORDER BY num DESC, reason
"""


def kinds_without_texts(corpus: Corpus) -> list[str]:
    """A sentence for each kind of text that was asked for and of which none was taken."""
    found: dict[str, list[tuple[str, int, str | None]]] = {}
    for kind, *why in corpus.connect().execute(_REFUSED, [STAGE]).fetchall():
        found.setdefault(kind, []).append(tuple(why))
    return [_sentence(kind, found[kind]) for kind in KINDS if kind in found]


def _sentence(kind: str, reasons: list[tuple[str, int, str | None]]) -> str:
    (reason, num, example), total = reasons[0], sum(num for _, num, _ in reasons)
    return (
        f"of the kind {kind} the corpus has no text: all {total} that the LLM was asked for were "
        f"refused, {num} of them because {REASONS.get(reason, reason)} ({reason}). For example: "
        f"{shorten(example or '')}"
    )
