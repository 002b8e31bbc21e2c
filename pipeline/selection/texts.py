"""The texts that a selection decides on, each with what is stored of it, as SQL.

The tables are views with a column `part`, as `tables.connect` makes them.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.engine.schemas import CAPTION_KINDS, ORIGINAL
from pipeline.selection.settings import CHANCE, TABLE_OF, SelectSettings

SCORED = "scores LEFT JOIN pictures USING (record_id)"
"""Every text with its own scores and those of its picture."""

WORDING = f"""coalesce(
    text,
    list_filter(more_captions, lambda more: '{ORIGINAL}-' || more.name = variant_id)[1].text,
    caption
)"""
"""What a text says: of `records` joined with `variants`, where the LLM has written it."""

_FROM = {
    "source": "records.source",
    "split": "records.split",
    "document": "records.document",
    "has_image": "records.image_id IS NOT NULL",
    "has_sound": "records.sound_id IS NOT NULL",
    "style": "variants.style",
    "next_id": "variants.next_id",
    "caption_fault": "scores.caption_fault",
    "record_refusal": "refused_records.refusal",
    "text_refusal": "refused_texts.refusal",
}
"""Where the columns lie that are no scores."""

_OF_DUPLICATES = {
    "duplicate_of": "duplicates.duplicate_of",
    "method": "duplicates.method",
    "distance": "duplicates.distance",
    "threshold": "duplicates.threshold",
}
"""The same of those that a selection needs which drops duplicates."""

_REFUSED = """SELECT part, record_id, variant_id, {
    'reason': reason, 'detail': detail, 'score': NULL::FLOAT, 'threshold': NULL::FLOAT
} AS refusal FROM refusals"""

_JOINS = {
    "records": "JOIN records USING (part, record_id)",
    "variants": "LEFT JOIN variants USING (part, record_id, variant_id)",
    "pictures": "LEFT JOIN pictures USING (part, record_id)",
    "refused_records": f"LEFT JOIN ({_REFUSED} WHERE variant_id IS NULL) AS refused_records"
    " USING (part, record_id)",
    "refused_texts": f"LEFT JOIN ({_REFUSED} WHERE variant_id IS NOT NULL) AS refused_texts"
    " USING (part, record_id, variant_id)",
    "duplicates": "LEFT JOIN duplicates USING (part, record_id)",
}

_OF_CAPTIONS = "clip_"
"""A negative should score low: how well text and picture fit decides about captions alone."""


def columns_of(settings: SelectSettings) -> list[str]:
    """The columns of `texts` that a selection needs."""
    duplicates = _OF_DUPLICATES if settings.drop_duplicates else ()
    return [*_FROM, *duplicates, *sorted(settings.scores())]


def texts_sql(columns: Iterable[str]) -> str:
    """All texts with `part`, `record_id`, `variant_id`, `kind`, `is_caption`, and some columns.

    `place` counts the texts of the table in their order. Only the tables that hold one of the
    columns are read.
    """
    chosen = {name: _column(name) for name in columns}
    tables = [table for table in _JOINS if any(f"{table}." in sql for sql in chosen.values())]
    return f"""
        SELECT part, record_id, variant_id, place, scores.kind,
            scores.kind IN {CAPTION_KINDS} AS is_caption,
            {", ".join(f"{sql} AS {name}" for name, sql in chosen.items())}
        FROM (SELECT *, row_number() OVER () AS place FROM scores) AS scores
        {" ".join(_JOINS[table] for table in tables)}
    """


def draw(purpose: str, identity: str) -> str:
    """SQL of `fingerprint.unit_interval(purpose, identity)`, `identity` being a column."""
    digits = f"left(sha256('{purpose}' || chr(31) || {identity}), 16)"
    return f"(('0x' || {digits})::UBIGINT / 18446744073709551616::DOUBLE)"


def _column(name: str) -> str:
    if name == CHANCE:
        return draw(CHANCE, "record_id")
    if name in TABLE_OF:
        value = (
            f"{TABLE_OF[name]}.{name}::FLOAT"  # as precise as the limit that it is compared with
        )
        is_partial = name.startswith(_OF_CAPTIONS)
        return f"CASE WHEN scores.kind IN {CAPTION_KINDS} THEN {value} END" if is_partial else value
    return {**_FROM, **_OF_DUPLICATES}[name]
