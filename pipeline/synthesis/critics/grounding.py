"""Grounding: what a text states has to be in the record; what a negative names must not be."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from pipeline.synthesis.critics.candidate import Candidate, Verdict, judged
from pipeline.synthesis.critics.claims import Claim, Stated
from pipeline.synthesis.critics.settings import CriticSettings
from pipeline.synthesis.critics.words import script_of

MAX_NAMED = 5
"""Claims that a verdict names."""

MAX_THINGS = 40
"""Things of a negative that are looked at; long before that it is too long."""


def grounding(candidate: Candidate, settings: CriticSettings) -> Verdict:
    """How likely it is that nothing in a text is made up, its claims being independent.

    For a negative: how likely it is that each thing that it names differs from the record. A text
    about a record's subject may say more of it than the record does.
    """
    if candidate.kind == "text":
        return _CANNOT_TELL
    stated = Stated(candidate.captions, allowed=candidate.style)
    # The lists are English, and say nothing about a record in another alphabet.
    in_english = settings.language == "en" and _is_latin(candidate.captions)
    if candidate.kind == "negative":
        return _contrast(candidate.text, stated, settings) if in_english else _CANNOT_TELL
    found = list(stated.claims(candidate.text))
    if not in_english:
        found = [claim for claim in found if claim.kind == "number" and claim.words.isdigit()]
    return judged(
        "grounding",
        _all_true(found),
        threshold=settings.min_grounding,
        reason="synthesis-ungrounded",
        detail=f"it says {_quoted([claim.words for claim in found])}, the record does not",
    )


def split_things(negative: str) -> list[str]:
    """The things that a negative lists, `MAX_THINGS` at most; a sentence is one."""
    stripped = negative.strip()
    if stripped.endswith((".", "!", "?")):
        return [stripped]
    return [thing.strip() for thing in stripped.split(",") if thing.strip()][:MAX_THINGS]


_CANNOT_TELL = Verdict(critic="grounding", score=1.0)


def _contrast(text: str, stated: Stated, settings: CriticSettings) -> Verdict:
    scores = {thing: 1 - _all_true(list(stated.claims(thing))) for thing in split_things(text)}
    true = [thing for thing, score in scores.items() if score < settings.min_contrast]
    return judged(
        "grounding",
        min(scores.values(), default=0.0),
        threshold=settings.min_contrast,
        reason="synthesis-not-contrary",
        detail=f"{_quoted(true) or 'it'} may be what the picture shows, a negative must not be",
    )


def _all_true(claims: Sequence[Claim]) -> float:
    return prod(1 - claim.chance for claim in claims)


def _is_latin(captions: Sequence[str]) -> bool:
    scripts = [script_of(letter) for caption in captions for letter in caption if letter.isalpha()]
    return 2 * scripts.count("LATIN") >= len(scripts)


def _quoted(words: Sequence[str]) -> str:
    named = [f'"{word}"' for word in dict.fromkeys(words)][:MAX_NAMED]
    return " and ".join(filter(None, (", ".join(named[:-1]), named[-1]))) if named else ""
