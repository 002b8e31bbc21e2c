"""Similarity: a text has to add something, and still has to say what the record states."""

from __future__ import annotations

from rapidfuzz import fuzz

from pipeline.synthesis.critics.candidate import Candidate, Verdict, judged
from pipeline.synthesis.critics.claims import Stated, is_content
from pipeline.synthesis.critics.settings import CriticSettings
from pipeline.synthesis.critics.words import MAX_CHARACTERS, fold, split_words

_ARTICLES = {"a", "an", "the"}


def novelty(candidate: Candidate, settings: CriticSettings) -> Verdict:
    """How far a text is from the nearest of the record's captions and its other texts.

    A text in a style differs by the style from texts without it, however near the rest is, and a
    list of tags by being one. A negative may be near the record, from which it differs in one
    thing, but not near another text.
    """
    rivals = [] if candidate.form == "tags" else list(candidate.others)
    if candidate.kind != "negative" and candidate.form != "tags":
        rivals += candidate.captions
    if candidate.kind == "style":
        style = _contents(candidate.style) & _contents(candidate.text)
        rivals = [rival for rival in rivals if style <= _contents(rival)]
    own = order_words(candidate.text)
    near = {rival: fuzz.ratio(own, order_words(rival)) / 100 for rival in rivals}
    nearest = max(near, key=lambda rival: near[rival], default="")
    return judged(
        "novelty",
        1 - near.get(nearest, 0.0),
        threshold=settings.min_novelty,
        reason="synthesis-too-near",
        detail=f'it adds nothing to "{nearest[:80]}"',
    )


def fidelity(candidate: Candidate, settings: CriticSettings) -> Verdict:
    """How much of the record a text says, or how much of what it says is stated; the larger share.

    A negative has nothing to be true to.
    """
    if candidate.kind == "negative":
        return Verdict(critic="fidelity", score=1.0)
    said = [word for word in split_words(candidate.text) if is_content(word)]
    style = _contents(candidate.style)
    own = [word for word in said if word.stem not in style]
    record = Stated(candidate.captions)
    if not record.words:
        return Verdict(critic="fidelity", score=1.0)
    missing = record.missing(candidate.text)
    covered = 1 - len(missing) / len(record.words)
    stated = sum(map(record.has, own)) / len(own) if own else 0.0
    return judged(
        "fidelity",
        max(covered, stated),
        threshold=settings.min_fidelity,
        reason="synthesis-too-far",
        detail=f'it does not say "{" ".join(missing[:8])}"',
    )


def _contents(text: str) -> set[str]:
    return {word.stem for word in split_words(text) if is_content(word)}


def order_words(text: str) -> str:
    """A text's words in order of the alphabet, without case and articles, of any script."""
    words = (fold(word.strip(".,;:!?\"'()")) for word in text[:MAX_CHARACTERS].split())
    return " ".join(sorted(word for word in words if word and word not in _ARTICLES))
