"""How different the texts of a group are from each other: pure functions on texts.

Most of these figures fall as more words are read, so that a large group looks poorer than a small
one. All groups of a comparison are therefore measured on equally many words and equally many texts,
as many as the smallest has. The texts are taken in the order of a hash: it is the same every time,
and those of one record do not stand together.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, groupby

import numpy as np
from rapidfuzz import fuzz, process

from pipeline.engine.fingerprint import unit_interval
from pipeline.synthesis.critics.similarity import order_words
from pipeline.synthesis.critics.words import MAX_CHARACTERS, has_spaces, script_of

SEGMENT = 2000
"""Words, or pairs of words, that distinct-n and the entropy are counted on at most."""

MIN_SEGMENT = 200
"""A group with fewer gets no figure, and does not make those of the others smaller. Ours: some
thirty captions."""

BLEU_TEXTS = 500
"""Texts that self-BLEU compares at most, as in Texygen."""

MIN_TEXTS = 20
"""The least for self-BLEU, near-duplicates and the spread."""

SPREAD_TEXTS = 500
"""Texts that the spread is a mean over at most, 125,000 pairs. Ours: an encoder may cost 10 ms a
text."""

NEAR = 92
"""Similarity in percent from which on two texts are nearly the same: what the critic of novelty
refuses, unless a recipe sets another limit."""

MAX_COMPARED = 1_500_000
"""Characters of the texts of a group that is compared: comparing all texts with all others takes as
long as the square of it, 5 s on one core."""

_MAX_ORDER = 4
_BLOCK = 512  # texts that are compared with all others at a time: 10 MB of 20,000
_NUM_POINTS = 60
_RUN = re.compile(r"\w+")

Words = Sequence[str]
Embed = Callable[[Sequence[str]], np.ndarray]
"""Unit vectors of texts: (N, D) float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text, and the record that it was written for."""

    record_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """The figures of one group of texts; None where there are too few for one.

    Attributes:
        num_texts: how many texts were compared.
        distinct_1: share of the words that are different ones, 0 to 1.
        distinct_2: the same of the pairs of words that follow each other in a text.
        entropy: of the pairs of words, in nats; the logarithm of their number where none comes
            twice.
        self_bleu: how much a text has in common with the others, 0 to 1; 1 when all are the same.
        near_duplicates: share of the texts that are nearly the same as one of another record.
        spread: mean cosine distance of two texts' embeddings, 0 to 2.
    """

    num_texts: int
    distinct_1: float | None
    distinct_2: float | None
    entropy: float | None
    self_bleu: float | None
    near_duplicates: float | None
    spread: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Groups of texts that were measured alike.

    Attributes:
        segment: words, or pairs of words, that distinct-n and the entropy were counted on; None
            where every group has too few.
        bleu_texts: texts that self-BLEU compared; None where every group has too few.
        groups: the figures of each group.
    """

    segment: int | None
    bleu_texts: int | None
    groups: Mapping[str, Diversity]

    @property
    def max_entropy(self) -> float | None:
        """The entropy of a segment in which nothing comes twice, in nats."""
        return math.log(self.segment) if self.segment else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """How evenly texts are spread over some classes.

    Attributes:
        evenness: the entropy of the shares as part of the highest possible one; 1 when all are
            equal, 0 when one class has all.
        ratio: the smallest class over the largest.
    """

    evenness: float
    ratio: float


def compare(groups: Mapping[str, Sequence[Text]], embed: Embed | None) -> Comparison:
    """Measure groups of texts on equally many words and texts.

    Args:
        groups: the texts of each; what they hold decides, not their order.
        embed: gives the embeddings of texts; None leaves the spread out.
    """
    mixed = {name: take(texts) for name, texts in groups.items()}
    words = {name: [split_tokens(one.text) for one in texts] for name, texts in mixed.items()}
    pairs = [sum(max(0, len(text) - 1) for text in texts) for texts in words.values()]
    segment = _common(pairs, MIN_SEGMENT, SEGMENT)
    bleu_texts = _common(map(len, words.values()), MIN_TEXTS, BLEU_TEXTS)
    return Comparison(
        segment=segment,
        bleu_texts=bleu_texts,
        groups={
            name: _measure(mixed[name], words[name], segment, bleu_texts, embed) for name in groups
        },
    )


def _common(sizes: Iterable[int], least: int, most: int) -> int | None:
    """What all groups have that are large enough; None where none is."""
    enough = [size for size in sizes if size >= least]
    return min(most, *enough) if enough else None


def _measure(
    texts: Sequence[Text],
    words: Sequence[Words],
    segment: int | None,
    bleu_texts: int | None,
    embed: Embed | None,
) -> Diversity:
    ones, twos = ngrams(words, 1), ngrams(words, 2)
    enough = len(texts) >= MIN_TEXTS
    spread_over = [one.text for one in texts[:SPREAD_TEXTS]]
    return Diversity(
        num_texts=len(texts),
        distinct_1=distinct(ones, segment) if segment else None,
        distinct_2=distinct(twos, segment) if segment else None,
        entropy=entropy(twos, segment) if segment else None,
        self_bleu=self_bleu(words[:bleu_texts]) if enough else None,
        near_duplicates=near_duplicates(texts) if enough else None,
        spread=spread(embed(spread_over)) if enough and embed else None,
    )


def take(texts: Iterable[Text], size: int = MAX_COMPARED) -> list[Text]:
    """The texts in the order of a hash of each with its record, until they have `size` characters.

    Of a longer text than the critics read only their share counts, and no figure sees the rest.
    """
    mixed = sorted(texts, key=lambda one: unit_interval("diversity", one.record_id, one.text))
    sizes = accumulate(min(len(one.text), MAX_CHARACTERS) for one in mixed)
    return [one for one, total in zip(mixed, sizes, strict=True) if total <= size]


def split_tokens(text: str) -> list[str]:
    """The words of a text without case; each character of a script without spaces is one."""
    tokens: list[str] = []
    for run in _RUN.findall(text[:MAX_CHARACTERS].casefold()):
        if run.isascii():
            tokens.append(run)
            continue
        for spaced, group in groupby(run, key=lambda letter: has_spaces(script_of(letter))):
            letters = list(group)
            tokens += ["".join(letters)] if spaced else letters
    return tokens


def ngrams(texts: Iterable[Words], order: int) -> list[tuple[str, ...]]:
    """Every n words that follow each other within a text, text after text."""
    return [
        tuple(words[place : place + order])
        for words in texts
        for place in range(len(words) - order + 1)
    ]


def distinct(grams: Sequence[tuple[str, ...]], segment: int) -> float | None:
    """Distinct-n: different n-grams as a share of all, the mean over segments of equal length.

    Li et al., A Diversity-Promoting Objective Function for Neural Conversation Models, arXiv
    1510.03055; they divide by the number of words, which lowers distinct-2 of short texts.
    """
    return _mean([len(set(part)) / segment for part in _segments(grams, segment)])


def entropy(grams: Sequence[tuple[str, ...]], segment: int) -> float | None:
    """Ent-n in nats: the entropy of the n-grams' frequencies, the mean over segments.

    Zhang et al., Generating Informative and Diverse Conversational Responses, arXiv 1809.05972. It
    also sees how often a phrase comes again, where distinct-n sees only that it does.
    """
    return _mean([_entropy(list(Counter(p).values())) for p in _segments(grams, segment)])


def self_bleu(texts: Sequence[Words]) -> float | None:
    """The mean BLEU-4 of each text with all others as its references; None of fewer than two.

    Zhu et al., Texygen, arXiv 1802.01886. BLEU as sacrebleu computes it for a sentence
    (effective order, exponential smoothing). Its own code reads all references again for each text,
    5 s for 500 texts; the most and the second most of each n-gram suffice.
    """
    if len(texts) < 2:
        return None
    counts = [
        [Counter(ngrams([words], order)) for order in range(1, _MAX_ORDER + 1)] for words in texts
    ]
    most: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
    for gram, count in chain.from_iterable(own.items() for text in counts for own in text):
        first, second = most[gram]
        most[gram] = [max(first, count), min(first, max(second, count))]
    lengths = Counter(map(len, texts))
    return _mean([_bleu(own, most, _nearest(own[0].total(), lengths)) for own in counts])


def near_duplicates(texts: Sequence[Text]) -> float:
    """The share of the texts that are nearly the same as a text of another record.

    Similarity is that of the critic of novelty: of the characters, words in order of the alphabet,
    without case and articles. Every text is compared with every other one that is not so much
    longer that it cannot be as similar.
    """
    forms_of = [order_words(one.text) for one in texts]
    owners: dict[str, set[str]] = defaultdict(set)
    for form, one in zip(forms_of, texts, strict=True):
        owners[form].add(one.record_id)
    forms = sorted(owners, key=len)
    lengths = [len(form) for form in forms]
    records = {record: place for place, record in enumerate(sorted(set().union(*owners.values())))}
    # -1 where there are several: such a form has a text of another record, whichever it is.
    sole = np.array([records[min(o)] if len(o := owners[form]) == 1 else -1 for form in forms])
    near = sole == -1
    for start in range(0, len(forms), _BLOCK):
        stop = min(start + _BLOCK, len(forms))
        end = bisect_right(lengths, lengths[stop - 1] * (200 - NEAR) / NEAR)
        similarity = process.cdist(
            forms[start:stop],
            forms[start:end],
            scorer=fuzz.ratio,
            score_cutoff=NEAR,
            dtype=np.float32,
        )  # (block, others) in percent, 0 below the cutoff
        alike = (similarity > 0) & (sole[start:stop, None] != sole[None, start:end])
        near[start:stop] |= alike.any(axis=1)
        near[start:end] |= alike.any(axis=0)
    repeated = {form for form, is_near in zip(forms, near, strict=True) if is_near}
    return sum(form in repeated for form in forms_of) / len(texts)


def spread(embeddings: np.ndarray) -> float | None:
    """The mean cosine distance over all pairs of (N, D) unit vectors; None of fewer than two.

    All pairs' cosines add up to the squared length of the vectors' sum, less N for those with
    themselves.
    """
    count = len(embeddings)
    if count < 2:
        return None
    total = embeddings.sum(axis=0, dtype=np.float64)
    cosine = (total @ total - count) / (count * (count - 1))
    return float(np.clip(1 - cosine, 0, 2))


def balance(counts: Sequence[int]) -> Balance | None:
    """How even some counts are (Pielou's evenness); None where nothing was counted."""
    if not sum(counts):
        return None
    highest = math.log(len(counts)) if len(counts) > 1 else 0.0
    return Balance(
        evenness=_entropy(counts) / highest if highest else 1.0, ratio=min(counts) / max(counts)
    )


def growth(texts: Sequence[Text]) -> list[tuple[int, int]]:
    """How many pairs of words have been read, and how many of them were different, as texts go by.

    A curve that flattens says that more texts would say the same (Heaps' law).
    """
    grams = ngrams([split_tokens(one.text) for one in take(texts)], 2)
    step = max(1, -(-len(grams) // _NUM_POINTS))
    seen: set[tuple[str, ...]] = set()
    points = [(0, 0)]
    for start in range(0, len(grams), step):
        seen.update(grams[start : start + step])
        points.append((min(start + step, len(grams)), len(seen)))
    return points


def commonest(texts: Sequence[Text], count: int) -> list[tuple[str, int]]:
    """The texts that most records share, but for case, articles and the order of the words.

    Returns:
        Each with its number of records, two at least.
    """
    owners: dict[str, set[str]] = defaultdict(set)
    shown: dict[str, str] = {}
    for one in texts:
        form = order_words(one.text)
        owners[form].add(one.record_id)
        shown[form] = min(shown.get(form, one.text), one.text)
    several = [(shown[form], len(records)) for form, records in owners.items() if len(records) > 1]
    return sorted(several, key=lambda pair: (-pair[1], pair[0]))[:count]


def _segments(
    grams: Sequence[tuple[str, ...]], segment: int
) -> Iterator[Sequence[tuple[str, ...]]]:
    """The segments that are full."""
    for start in range(0, len(grams) - segment + 1, segment):
        yield grams[start : start + segment]


def _entropy(counts: Iterable[int]) -> float:
    shares = np.array([count for count in counts if count], dtype=np.float64)
    shares /= shares.sum()
    return float(max(0.0, -(shares * np.log(shares)).sum()))


def _bleu(
    own: Sequence[Counter[tuple[str, ...]]],
    most: Mapping[tuple[str, ...], Sequence[int]],
    nearest: int,
) -> float:
    """BLEU of one text, from its n-grams of each order and the most of each in all texts.

    Where a text itself has the most of an n-gram, the second most is what the others have.
    """
    precisions: list[float] = []
    halved = 1.0
    for grams in own:
        total = grams.total()
        if not total:
            break
        matches = sum(
            min(count, first if count < first else second)
            for gram, count in grams.items()
            for first, second in [most[gram]]
        )
        halved *= 1 if matches else 2
        precisions.append(matches / total if matches else 1 / (halved * total))
        if not matches and len(precisions) == 1:  # not a word in common
            return 0.0
    if not precisions:
        return 0.0
    length = own[0].total()
    brevity = min(1.0, math.exp(1 - nearest / length))
    return brevity * math.exp(sum(map(math.log, precisions)) / len(precisions))


def _nearest(length: int, lengths: Counter[int]) -> int:
    """The length of another text that is nearest to that of one, the shorter of two."""
    others = [other for other, count in lengths.items() if count > (other == length)]
    return min(others, key=lambda other: (abs(other - length), other))


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
