"""The critics: small functions from a text to a score and a reason, without the LLM.

They look at what an answer has already been cut into (`parsing.parse`). What they take may have to
pass a model, too: CLIP, which sees the picture, and the LLM as a judge, for whom `judge.py` has the
words.
"""

from __future__ import annotations

from pipeline.synthesis.critics.candidate import Candidate, Verdict
from pipeline.synthesis.critics.grounding import grounding
from pipeline.synthesis.critics.language import language
from pipeline.synthesis.critics.length import length
from pipeline.synthesis.critics.repetition import repetition
from pipeline.synthesis.critics.settings import CriticSettings
from pipeline.synthesis.critics.similarity import fidelity, novelty

VERSION = 1
"""Raised when the code or the lists of words change a verdict: every text is then judged again, and
nothing is asked again."""

CRITICS = (language, length, repetition, grounding, fidelity, novelty)
"""In the order of their verdicts: what makes the later ones pointless comes first."""

REASONS = {
    "synthesis-unprintable": "has characters that cannot be printed",
    "synthesis-markup": "has HTML, Markdown, code or an address in it",
    "synthesis-off-task": "refuses, or speaks about the task",
    "synthesis-wrong-language": "is in another script or language than the record",
    "synthesis-too-short": "has too few words",
    "synthesis-too-long": "has too many words",
    "synthesis-repetitive": "repeats itself",
    "synthesis-ungrounded": "states what the record does not",
    "synthesis-not-contrary": "is a negative that names what the record states",
    "synthesis-too-far": "leaves out what the record states",
    "synthesis-judged-poor": "has a bad mark from the LLM as a judge",
    "synthesis-clip-loss": "fits the picture much less than the record's own caption does",
    "synthesis-too-near": "is nearly the record's caption or another of its texts",
}
"""The reject codes of the critics, and what a text with them does."""


def critique(candidate: Candidate, settings: CriticSettings) -> list[Verdict]:
    """What every critic says of a text, in the order of `CRITICS`.

    All are asked, so that a rewrite can heed them together.
    """
    return [critic(candidate, settings) for critic in CRITICS]
