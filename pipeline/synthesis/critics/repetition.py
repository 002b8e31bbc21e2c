"""Repetition: a text says a thing once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from pipeline.synthesis.critics.candidate import Candidate, Verdict, judged
from pipeline.synthesis.critics.claims import is_content
from pipeline.synthesis.critics.grounding import split_things
from pipeline.synthesis.critics.settings import CriticSettings
from pipeline.synthesis.critics.words import Word, split_words

Gram = tuple[str, ...]

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\s+(?=[AB]: )")


def repetition(candidate: Candidate, settings: CriticSettings) -> Verdict:
    """The share of the words that state something, and of the pairs of words, that come once.

    What comes as often in the record's captions is no repetition: "dark skin tone, light skin tone"
    is two of each. A word twice in a row costs half. The smallest share counts, of the sentences
    each by itself, since a text of several names its subject in each, and of whole sentences.
    Of a negative the things count, since they may well have words in common.
    """
    if candidate.form == "absent":
        things = [(thing.casefold(),) for thing in split_things(candidate.text)]
        return _verdict(*_once(things, Counter()), settings)
    records = [split_words(caption) for caption in candidate.captions]
    free_words = _allowed([_contents(record) for record in records], candidate.kind)
    free_pairs = _allowed([_pairs(record) for record in records], candidate.kind)
    worst = (1.0, "")
    sentences = [split_words(sentence) for sentence in _SENTENCE_END.split(candidate.text)]
    for words in sentences:
        pairs = _pairs(words)
        by_sentence = min(_once(_contents(words), free_words), _once(pairs, free_pairs))
        doubles = [pair for pair in pairs if pair[0] == pair[1] and pair not in free_pairs]
        if doubles:
            by_sentence = by_sentence[0] / 2, " ".join(doubles[0])
        worst = min(worst, by_sentence)
    whole = [tuple(word.plain for word in words) for words in sentences if words]
    return _verdict(*min(worst, _once(whole, Counter())), settings)


def _allowed(records: Sequence[Sequence[Gram]], kind: str) -> Counter[Gram]:
    """How often a gram may come: as in the record's captions, or in those of two records."""
    counts = [Counter(record) for record in records]
    most: Counter[Gram] = Counter()
    for count in counts:
        most = most + count if kind == "interleave" else most | count
    return most


def _once(grams: Sequence[Gram], allowed: Counter[Gram]) -> tuple[float, str]:
    """The share that does not repeat others beyond what is allowed, and what does most."""
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
