"""What another selection would keep and lose, without doing it."""

from __future__ import annotations

from typing import Any

from duckdb import DuckDBPyConnection

from pipeline.engine.schemas import ORIGINAL
from pipeline.selection.cuts import Cuts
from pipeline.selection.outcome import decide
from pipeline.selection.settings import CHANCE, SelectSettings
from pipeline.selection.texts import WORDING
from pipeline.words import why

Row = dict[str, Any]

_NUM_EXAMPLES = 5


def compare(connection: DuckDBPyConnection, settings: SelectSettings, cuts: Cuts) -> Row:
    """The selection that a corpus has beside the one that it would have, as JSON.

    Args:
        connection: the live tables of a corpus, all parts of which are selected.
        settings: the other selection.
        cuts: its cuts.

    Returns:
        `records` and `texts`: how many are `kept`, how many `would_be`, and how many of these are
        `lost` and `gained`; the same of the records `by_source` and of the texts `by_style`;
        `by_reason` the rejects of both; and some texts that are `lost` and `gained`.
    """
    decide(connection, settings, cuts)
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE compared AS
        SELECT outcome.*, selection.record_id IS NOT NULL AS was_in,
            outcome.stream IS NOT NULL AS is_in
        FROM outcome LEFT JOIN selection USING (part, record_id, variant_id)
        """
    )
    records = """
        (SELECT source, bool_or(was_in AND is_caption) AS was_in,
            bool_or(is_in AND is_caption) AS is_in
        FROM compared GROUP BY part, record_id, source)
    """
    return {
        "records": _dicts(connection, f"SELECT {_COUNTS} FROM {records}")[0],
        "texts": _dicts(connection, f"SELECT {_COUNTS} FROM compared")[0],
        "by_source": _dicts(
            connection,
            f"SELECT source, {_COUNTS} FROM {records} GROUP BY source ORDER BY source",
        ),
        "by_style": _dicts(
            connection,
            f"SELECT style, {_COUNTS} FROM compared WHERE style IS NOT NULL"
            " GROUP BY style ORDER BY style",
        ),
        "by_reason": _dicts(connection, _REASONS),
        "lost": _examples(connection, settings, "was_in AND NOT is_in"),
        "gained": _examples(connection, settings, "is_in AND NOT was_in"),
    }


_COUNTS = """
    count(*) FILTER (was_in) AS kept, count(*) FILTER (is_in) AS would_be,
    count(*) FILTER (was_in AND NOT is_in) AS lost,
    count(*) FILTER (is_in AND NOT was_in) AS gained
"""

_REASONS = f"""
    WITH ends AS (
        SELECT reason, variant_id IS NULL AS is_whole, true AS was
        FROM rejects WHERE stage = 'select'
        UNION ALL
        SELECT fault.reason, NOT is_kept, false FROM outcome
        WHERE fault IS NOT NULL AND (is_kept OR variant_id = '{ORIGINAL}')
    )
    SELECT reason,
        count(*) FILTER (is_whole AND was) AS records,
        count(*) FILTER (is_whole AND NOT was) AS records_would_be,
        count(*) FILTER (NOT is_whole AND was) AS texts,
        count(*) FILTER (NOT is_whole AND NOT was) AS texts_would_be
    FROM ends GROUP BY reason ORDER BY reason
"""


def _examples(
    connection: DuckDBPyConnection, settings: SelectSettings, condition: str
) -> list[Row]:
    """The first such texts by record: a random choice, as ids are hashes."""
    scores = ", ".join(sorted(settings.scores() - {CHANCE})) or "NULL AS nothing"
    rows = _dicts(
        connection,
        f"""
        WITH chosen AS (
            SELECT * FROM compared WHERE {condition}
            ORDER BY record_id, variant_id LIMIT {_NUM_EXAMPLES}
        )
        SELECT record_id, variant_id, chosen.kind, chosen.source, {WORDING} AS text, {scores},
            fault.reason, fault.detail, fault.score, fault.threshold
        FROM chosen
            JOIN records USING (part, record_id)
            LEFT JOIN variants USING (part, record_id, variant_id)
        ORDER BY record_id, variant_id
        """,
    )
    return [row | ({"why": why(row)} if row["reason"] else {}) for row in rows]


def _dicts(connection: DuckDBPyConnection, sql: str) -> list[Row]:
    rows = connection.sql(sql)
    return [dict(zip(rows.columns, row, strict=True)) for row in rows.fetchall()]
