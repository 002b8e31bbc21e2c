"""How different the LLM's texts are from each other: what the card and the report show of it.

A corpus may hold hundreds of millions of texts, so that the figures are those of a sample: the
texts of the records with the lowest ids, and ids are hashes. It is the same sample every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

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
        styles: the sources' captions, and the texts in each style.
        num_by_style: texts in each style that was asked for, of all texts.
        balance: how even these are; None without styles.
        growth: for each kind and the sources' captions, pairs of words read and different ones.
        commonest: texts that several records of the sample share, with their number.
    """

    num_texts: int
    kinds: Comparison
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
        f"CREATE TEMP TABLE sampled AS {texts} SELECT record_id, kind, style, text FROM chosen"
        f" ORDER BY record_id, variant_id LIMIT {size}"
    )
    sampled = connection.sql("FROM sampled ORDER BY ALL").fetchall()
    if not sampled:
        return None
    captions = connection.sql(
        "SELECT record_id, caption FROM records WHERE record_id IN (SELECT record_id FROM sampled)"
    ).fetchall()
    by_style = connection.sql(
        f"{texts} SELECT style, count(chosen.record_id) FROM"
        " (SELECT DISTINCT style FROM answers WHERE style IS NOT NULL)"
        " LEFT JOIN chosen USING (style) GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    ((num_texts,),) = connection.sql(f"{texts} SELECT count(*) FROM chosen").fetchall()
    written = [(kind, style, Text(record_id=r, text=text)) for r, kind, style, text in sampled]
    originals = {ORIGINAL: [Text(record_id=record, text=text) for record, text in captions]}
    kinds = _by_name((kind, text) for kind, _, text in written)
    styles = _by_name((style, text) for _, style, text in written if style is not None)
    everything = [text for _, _, text in written]
    return TextDiversity(
        num_texts=num_texts,
        kinds=compare({**originals, ALL: everything, **kinds}, embed),
        styles=compare({**originals, **styles}, embed),
        num_by_style=dict(by_style),
        balance=balance([count for _, count in by_style]),
        growth={name: growth(group) for name, group in (originals | kinds).items()},
        commonest=commonest(everything, _NUM_COMMONEST),
    )


def _by_name(texts: Iterator[tuple[str, Text]]) -> dict[str, list[Text]]:
    """The texts of each group, the groups in order of the alphabet."""
    groups: dict[str, list[Text]] = {}
    for name, text in texts:
        groups.setdefault(name, []).append(text)
    return dict(sorted(groups.items()))
