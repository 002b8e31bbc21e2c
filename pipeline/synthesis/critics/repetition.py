"""Repetition: a text says a thing once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from pipeline.synthesis.critics.candidate import Candidate, Verdict, judged
from pipeline.synthesis.critics.claims import is_content
from pipeline.synthesis.critics.grounding import split_things
from pipeline.synthesis.critics.settings import CriticSettings
from pipeline.synthesis.critics.words import Word, split_words

Gram = tuple[str, ...]


def repetition(candidate: Candidate, settings: CriticSettings) -> Verdict:
    """The share of the words that state something, and of the pairs of words, that come once.

    What comes as often in one of the record's captions is no repetition: "dark skin tone, light
    skin tone" is two of each. The smaller share counts, and a word twice in a row costs half.
    Of a negative the things count, since they may well have words in common.
    """
    if candidate.kind == "negative":
        things = [(thing.casefold(),) for thing in split_things(candidate.text)]
        return _verdict(*_once(things, []), settings)
    words = split_words(candidate.text)
    records = [split_words(caption) for caption in candidate.captions]
    by_word = _once(_contents(words), [_contents(record) for record in records])
    by_pair = _once(_pairs(words), [_pairs(record) for record in records])
    score, said = min(by_word, by_pair)
    known = {pair for record in records for pair in _pairs(record)}
    doubles = [pair for pair in _pairs(words) if pair[0] == pair[1] and pair not in known]
    if doubles:
        score, said = score / 2, " ".join(doubles[0])
    return _verdict(score, said, settings)


def _once(grams: Sequence[Gram], records: Sequence[Sequence[Gram]]) -> tuple[float, str]:
    """The share that does not repeat others beyond what a record repeats, and what does most."""
    allowed: Counter[Gram] = Counter()
    for record in records:
        allowed |= Counter(record)
    extra = {gram: n - max(1, allowed[gram]) for gram, n in Counter(grams).items()}
    again = {gram: n for gram, n in extra.items() if n > 0}
    most = max(again, key=lambda gram: again[gram], default=())
    return 1 - sum(again.values()) / max(1, len(grams)), " ".join(most)


def _verdict(score: float, said: str, settings: CriticSettings) -> Verdict:
    return judged(
        "repetition",
        score,
        threshold=settings.min_freshness,
        reason="synthesis-repetitive",
        detail=f'it repeats "{said}"',
    )


def _contents(words: Sequence[Word]) -> list[Gram]:
    return [(word.plain,) for word in words if is_content(word)]


def _pairs(words: Sequence[Word]) -> list[Gram]:
    return [(one.plain, other.plain) for one, other in pairwise(words)]
