"""What the report shows beside the counts: examples of records, distributions of scores, times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.engine.corpus import Corpus
from pipeline.engine.schemas import CAPTION_KINDS, ORIGINAL
from pipeline.engine.storage import read_json_lines
from pipeline.ledger.events import kind_of
from pipeline.publish.facts import KEPT
from pipeline.references import image_bytes
from pipeline.selection.texts import SCORED, WORDING
from pipeline.synthesis.forms import FORMS
from pipeline.synthesis.forms import KINDS as LLM_KINDS
from pipeline.words import LEFT_OUT_WITH_RECORD

_NUM_BINS = 40

KINDS = (ORIGINAL, *LLM_KINDS)
"""The kinds of text in the order in which they are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text of a record and what became of it.

    Attributes:
        kind: one of `KINDS`.
        form: the form of that kind; None for the source's own.
        text: the text; where none came about, what the LLM answered.
        style: the style that was asked for; None for other kinds.
        attempt: which try gave it; None for the source's own.
        stream: where it is in the shards; None where it is not.
        reason: why it was left out; None where it was not, or where nothing is decided yet.
        why: what the critic had against it, in words; None where none had.
        score: the score that decided, or None.
        threshold: the limit that it missed, or None.
    """

    kind: str
    text: str
    form: str | None = None
    style: str | None = None
    attempt: int | None = None
    stream: str | None = None
    reason: str | None = None
    why: str | None = None
    score: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A record that the LLM was asked about.

    Attributes:
        record_id: its id.
        image: its picture.
        caption: the source's caption.
        attempts: for each attempt what it gave, by kind.
    """

    record_id: str
    image: bytes
    caption: Text
    attempts: Mapping[int, Sequence[Text]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A picture and a text with their CLIP score."""

    image: bytes
    kind: str
    text: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A histogram of one score, for one or more groups of texts.

    Attributes:
        score: the column of `scores` or `pictures`.
        edges: the borders of the bins, one more than there are bins; one number where all values
            are equal.
        counts: how many values fall into each bin, by group.
    """

    score: str
    edges: Sequence[float]
    counts: Mapping[str, Sequence[int]]

    @property
    def total(self) -> int:
        """How many values there are."""
        return sum(sum(counts) for counts in self.counts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """What the events say of a stage, over all runs of the corpus.

    Attributes:
        stage: its name.
        num_runs: in how many runs it had something to do.
        seconds: wall-clock time of these.
        num_parts: parts that it committed.
        num_rows: rows of these parts.
        num_rejects: rejects of these parts.
        last: when it was last done, ISO 8601 in UTC.
    """

    stage: str
    num_runs: int
    seconds: float
    num_parts: int
    num_rows: int
    num_rejects: int
    last: str


def examples(corpus: Corpus, count: int) -> list[Example]:
    """The first records by id that the LLM was asked about: a random choice, as ids are hashes."""
    rows = corpus.query(
        f"""
        SELECT record_id, caption, image_id, image, image_ref FROM records
        WHERE image_id IS NOT NULL AND record_id IN (
            SELECT record_id FROM answers
        ) ORDER BY record_id LIMIT {count}
        """
    ).fetchall()
    ids = [record for record, *_ in rows]
    texts: dict[str, list[Text]] = {record: [] for record in ids}
    for record, text in _texts(corpus, ids, {record: caption for record, caption, *_ in rows}):
        texts[record].append(text)
    return [
        Example(
            record_id=record,
            image=image,
            caption=next(text for text in texts[record] if text.attempt is None),
            attempts=_by_attempt(texts[record]),
        )
        for record, image in zip(ids, _images([row[2:] for row in rows]), strict=True)
    ]


def _by_attempt(texts: Sequence[Text]) -> dict[int, list[Text]]:
    """The texts of each attempt, in the order of the kinds and their forms."""
    attempts: dict[int, list[Text]] = {}
    for text in sorted(texts, key=_place):
        if text.attempt is not None:
            attempts.setdefault(text.attempt, []).append(text)
    return dict(sorted(attempts.items()))


def pairs_around(corpus: Corpus, cut: float, count: int) -> tuple[list[Pair], list[Pair]]:
    """The kept pairs just above a cut on the CLIP score, and the rejected ones just below it."""
    above = f"{KEPT} SELECT record_id, variant_id FROM kept"
    below = (
        f"SELECT record_id, coalesce(variant_id, '{ORIGINAL}') FROM rejects"
        " WHERE reason = 'clip-score-below-threshold'"
    )
    return (
        _pairs(corpus, above, f"clip_score >= {cut!r}", "clip_score", count),
        _pairs(corpus, below, f"clip_score < {cut!r}", "clip_score DESC", count),
    )


def distribution(corpus: Corpus, score: str, *, by_kind: Iterable[str]) -> Distribution | None:
    """The histogram of a score over the texts of some kinds; None where it has no values."""
    kinds = tuple(by_kind)
    named = f"kind IN ({', '.join(map(repr, kinds))}) AND {score} IS NOT NULL"
    ((low, high),) = corpus.query(
        f"SELECT min({score}), max({score}) FROM {SCORED} WHERE {named}"
    ).fetchall()
    if low is None:
        return None
    bins = _NUM_BINS if high > low else 1
    width = (high - low) / bins or 1.0
    rows = corpus.query(
        f"SELECT kind, least(floor(({score} - {low!r}) / {width!r}), {bins - 1})::INT, count(*)"
        f" FROM {SCORED} WHERE {named} GROUP BY ALL"
    ).fetchall()
    counts = {kind: [0] * bins for kind in kinds if any(row[0] == kind for row in rows)}
    for kind, place, number in rows:
        counts[kind][place] = number
    edges = [low + width * place for place in range(bins + 1)] if high > low else [low]
    return Distribution(score=score, edges=edges, counts=counts)


def caption_faults(corpus: Corpus) -> list[tuple[str, str, int]]:
    """Kind of text, first check that failed, and how many texts failed it."""
    return corpus.query(
        "SELECT kind, caption_fault, count(*) FROM scores WHERE caption_fault IS NOT NULL"
        " GROUP BY ALL ORDER BY count(*) DESC, kind, caption_fault"
    ).fetchall()


def stage_times(path: Path) -> list[StageTime]:
    """The stages in `events.jsonl`, in the order in which they first ended."""
    stages: dict[str, list[dict[str, Any]]] = {}
    for event in read_json_lines(path):
        if kind_of(event) in {"stage-done", "fitted"}:
            stages.setdefault(event["stage"], []).append(event)
    times = []
    for stage, events in stages.items():
        times.append(
            StageTime(
                stage=stage,
                num_runs=len(events),
                seconds=sum(event["seconds"] for event in events),
                num_parts=sum(event.get("parts", 0) for event in events),
                num_rows=sum(event.get("num_rows", 0) for event in events),
                num_rejects=sum(event.get("num_rejects", 0) for event in events),
                last=events[-1]["time"],
            )
        )
    return times


def _texts(
    corpus: Corpus, ids: Sequence[str], captions: Mapping[str, str]
) -> list[tuple[str, Text]]:
    """Every text of some records, with its record; also those that the LLM failed to give."""
    chosen = f"record_id IN ({', '.join(map(repr, ids)) or 'NULL'})"
    streams = {
        (record, variant): stream
        for record, variant, stream in corpus.query(
            f"{KEPT} SELECT record_id, variant_id, stream FROM kept WHERE {chosen}"
        ).fetchall()
    }
    rejects = {
        (record, variant): (reason, score, threshold)
        for record, variant, reason, score, threshold in corpus.query(
            f"SELECT record_id, variant_id, reason, score, threshold FROM rejects WHERE {chosen}"
        ).fetchall()
    }

    def judged(record: str, variant: str, text: Text) -> Text:
        why = rejects.get((record, variant), (None, None, None))
        if (record, None) in rejects:  # its score is the original's, and no other text's
            lost = (LEFT_OUT_WITH_RECORD, None, None)
            why = (
                rejects[record, None]
                if text.attempt is None
                else rejects.get((record, variant), lost)
            )
        stream = streams.get((record, variant))
        reason, score, threshold = why
        return replace(text, stream=stream, reason=reason, score=score, threshold=threshold)

    written = corpus.query(
        "SELECT record_id, variant_id, kind, form, text, style, attempt FROM variants"
        f" WHERE {chosen}"
    ).fetchall()
    refused = corpus.query(
        "SELECT record_id, variant_id, kind, form, coalesce(detail, ''), score, attempt"
        f" FROM rejects WHERE stage = 'synthesize' AND {chosen}"
    ).fetchall()
    texts = [(record, ORIGINAL, Text(kind=ORIGINAL, text=captions[record])) for record in ids]
    for record, variant, kind, form, text, style, attempt in written:
        taken = Text(kind=kind, form=form, text=text, style=style, attempt=attempt)
        texts.append((record, variant, taken))
    for record, variant, kind, form, detail, score, attempt in refused:
        text, why = _split_detail(detail, score)
        left_out = Text(kind=kind, form=form, text=text, why=why, attempt=attempt)
        texts.append((record, variant, left_out))
    return [(record, judged(record, variant, text)) for record, variant, text in texts]


def _split_detail(detail: str, score: float | None) -> tuple[str, str | None]:
    """The text of a reject, and what a critic says of it: in brackets after the text."""
    text, bracket, why = detail.rpartition(" [")
    if score is None or not bracket:  # what a critic has refused has its score
        return detail, None
    return text, why.removesuffix("]")


def _place(text: Text) -> tuple[int, int]:
    """Where a text stands among those of its attempt: by kind and form."""
    return KINDS.index(text.kind), list(FORMS).index(text.form) if text.form else 0


def _pairs(corpus: Corpus, texts: str, condition: str, order: str, count: int) -> list[Pair]:
    """The first pairs of a CLIP score among (record_id, variant_id) that a query gives."""
    rows = corpus.query(
        f"""
        WITH chosen AS (
            SELECT record_id, variant_id, kind, clip_score FROM scores
            WHERE kind IN {CAPTION_KINDS} AND {condition} AND (record_id, variant_id) IN ({texts})
            ORDER BY {order}, record_id, variant_id LIMIT {count}
        )
        SELECT chosen.kind, {WORDING}, clip_score, image_id, image, image_ref FROM chosen
        JOIN records USING (record_id) LEFT JOIN variants USING (record_id, variant_id)
        ORDER BY {order}, record_id, variant_id
        """
    ).fetchall()
    return [
        Pair(image=image, kind=kind, text=text, score=score)
        for (kind, text, score, *_), image in zip(
            rows, _images([row[3:] for row in rows]), strict=True
        )
    ]


def _images(rows: Sequence[Sequence[Any]]) -> list[bytes]:
    """The images of rows of (image_id, image, image_ref)."""
    names = ("image_id", "image", "image_ref")
    return image_bytes([dict(zip(names, row, strict=True)) for row in rows])
