"""Length: neither a fragment nor a text that has lost its thread."""

from __future__ import annotations

import re

from pipeline.synthesis.critics.candidate import Candidate, Verdict, failed
from pipeline.synthesis.critics.settings import CriticSettings
from pipeline.synthesis.critics.words import MAX_CHARACTERS, has_spaces, script_of
from pipeline.synthesis.forms import FORMS

_RUN = re.compile(r"\w+")


def length(candidate: Candidate, settings: CriticSettings) -> Verdict:  # noqa: ARG001
    """The share of the nearest bound that a text keeps to; 1 within the bounds."""
    count = count_words(candidate.text)
    least = FORMS[candidate.form].min_words
    most = FORMS[candidate.form].max_words
    if count < least:
        detail = f"it has fewer than {least} words"
        return failed("length", count / least, reason="synthesis-too-short", detail=detail)
    if count > most:
        detail = f"it has more than {most} words"
        return failed("length", most / count, reason="synthesis-too-long", detail=detail)
    return Verdict(critic="length", score=1.0)


def count_words(text: str) -> int:
    """The words of a text; each character of a script without spaces counts as one."""
    count = 0
    for run in _RUN.findall(text[:MAX_CHARACTERS]):
        alone = sum(not has_spaces(script_of(letter)) for letter in run)
        count += alone + (alone < len(run))
    return count
