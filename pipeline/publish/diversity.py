"""How different the LLM's texts are from each other: what the card and the report show of it.

A corpus may hold hundreds of millions of texts, so that the figures are those of a sample: the
texts of the records with the lowest ids, and ids are hashes. It is the same sample every time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.engine.corpus import Corpus
from pipeline.engine.schemas import ORIGINAL
from pipeline.publish.facts import KEPT
from pipeline.synthesis.diversity import (
    Balance,
    Comparison,
    Embed,
    Text,
    balance,
    commonest,
    compare,
    growth,
)
from pipeline.synthesis.forms import FORMS, KINDS

SAMPLE = 20_000
"""Texts that are compared at most. Ours: every one with every other one takes 5 s."""

ALL = "all"
"""The group of everything that the LLM wrote."""

WRITTEN = "WITH chosen AS (FROM variants)"
"""The texts that the critics took."""
STAYS = f"{KEPT}, chosen AS (FROM variants SEMI JOIN kept USING (record_id, variant_id))"
"""Of these, the ones that stay."""

_NUM_COMMONEST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDiversity:
    """What a sample of the LLM's texts says, beside the captions of the same records.

    Attributes:
        num_texts: how many texts there are.
        kinds: the sources' captions, everything that the LLM wrote, and each kind of it.
        forms: the sources' captions, and the texts of each form.
        styles: the sources' captions, and the texts in each style.
        num_by_style: texts in each style that was asked for, of all texts.
        balance: how even these are; None without styles.
        growth: for each kind and the sources' captions, pairs of words read and different ones.
        commonest: texts that several records of the sample share, with their number.
    """

    num_texts: int
    kinds: Comparison
    forms: Comparison
    styles: Comparison
    num_by_style: Mapping[str, int]
    balance: Balance | None
    growth: Mapping[str, Sequence[tuple[int, int]]]
    commonest: Sequence[tuple[str, int]]

    @property
    def num_compared(self) -> int:
        """How many of the texts were compared."""
        return self.kinds.groups[ALL].num_texts


def text_diversity(
    corpus: Corpus, texts: str, *, embed: Embed | None, size: int = SAMPLE
) -> TextDiversity | None:
    """Measure how different texts of a corpus are; None where there are none.

    Args:
        corpus: in any state.
        texts: which texts, `WRITTEN` or `STAYS`.
        embed: an encoder for the spread, or None.
        size: how many texts to compare at most.
    """
    connection = corpus.connect()
    connection.execute(
        f"CREATE TEMP TABLE sampled AS {texts} SELECT record_id, kind, form, style, text"
        f" FROM chosen ORDER BY record_id, variant_id LIMIT {size}"
    )
    sampled = connection.sql("FROM sampled ORDER BY ALL").fetchall()
    if not sampled:
        return None
    captions = connection.sql(
        "SELECT record_id, caption FROM records WHERE record_id IN (SELECT record_id FROM sampled)"
    ).fetchall()
    by_style = connection.sql(
        f"{texts} SELECT style, count(chosen.record_id) FROM"
        " (SELECT DISTINCT style FROM answers WHERE kind = 'style')"
        " LEFT JOIN chosen USING (style) GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    ((num_texts,),) = connection.sql(f"{texts} SELECT count(*) FROM chosen").fetchall()
    originals = {ORIGINAL: [Text(record_id=record, text=text) for record, text in captions]}
    written = [(names, Text(record_id=record, text=text)) for record, *names, text in sampled]
    by_kind = _groups(((names[0], text) for names, text in written), KINDS)
    by_form = _groups(((names[1], text) for names, text in written), FORMS)
    by_named_style = _groups(((names[2], text) for names, text in written), dict(by_style))
    everything = [text for group in by_kind.values() for text in group]
    encode = _remembering(embed) if embed else None
    return TextDiversity(
        num_texts=num_texts,
        kinds=compare({**originals, ALL: everything, **by_kind}, encode),
        forms=compare({**originals, **by_form}, encode),
        styles=compare({**originals, **by_named_style}, encode),
        num_by_style=dict(by_style),
        balance=balance([count for _, count in by_style]),
        growth={name: growth(group) for name, group in (originals | by_kind).items()},
        commonest=commonest(everything, _NUM_COMMONEST),
    )


def _groups(
    texts: Iterable[tuple[str | None, Text]], names: Iterable[str]
) -> dict[str, list[Text]]:
    """The texts of each of some groups, those without any left out."""
    groups: dict[str, list[Text]] = {name: [] for name in names}
    for name, text in texts:
        if name is not None:
            groups[name].append(text)
    return {name: group for name, group in groups.items() if group}


def _remembering(embed: Embed) -> Embed:
    """An encoder that reads a text once, however many groups it is in."""
    known: dict[str, np.ndarray] = {}

    def encode(texts: Sequence[str]) -> np.ndarray:
        new = sorted(set(texts) - known.keys())
        if new:
            known.update(zip(new, embed(new), strict=True))
        return np.stack([known[text] for text in texts])

    return encode
