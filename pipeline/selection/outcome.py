"""What becomes of every text by a selection, as one table in DuckDB."""

from __future__ import annotations

from duckdb import DuckDBPyConnection

from pipeline.engine.schemas import ORIGINAL
from pipeline.selection.cuts import Cuts
from pipeline.selection.faults import fault, fault_sql, quoted, refusal_sql
from pipeline.selection.settings import Ramp, SelectSettings
from pipeline.selection.texts import columns_of, draw, texts_sql

_WITHOUT_END = fault(
    "'bridge-without-end'",
    quoted("the record that it leads to is left out, or is in another split"),
)


def decide(connection: DuckDBPyConnection, settings: SelectSettings, cuts: Cuts) -> None:
    """Make the table `outcome`: each text with its end.

    A record that keeps no caption is left out as a whole, and the text `original` stands for it.

    Its columns are those of `texts.texts_sql`, `is_kept` (the record is), `fault` (of the text, or
    of the record where it is left out) and, null where it is left out, `stream` and `weight`.
    """
    judged = f"""
        SELECT *, {refusal_sql(settings)} AS refusal, {fault_sql(settings, cuts)} AS fault
        FROM ({texts_sql(columns_of(settings))})
    """
    connection.execute(f"CREATE OR REPLACE TEMP TABLE judged AS {judged}")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE kept AS {_KEPT}")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE bridges AS {_BRIDGES}")
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE outcome AS
        WITH streams AS ({_streams(settings.mixed_share)}), ends AS (
            SELECT judged.* EXCLUDE (refusal, fault), streams.record_id IS NOT NULL AS is_kept,
                stream, num_own, num_written,
                CASE
                    WHEN refusal IS NOT NULL THEN refusal
                    WHEN judged.fault IS NOT NULL THEN judged.fault
                    WHEN is_kept AND kind = 'interleave' AND variant_id NOT IN (
                        SELECT variant_id FROM bridges
                    ) THEN {_WITHOUT_END}
                END AS fault
            FROM judged LEFT JOIN streams USING (part, record_id)
        )
        SELECT * EXCLUDE (stream, num_own, num_written),
            CASE
                WHEN NOT is_kept OR fault IS NOT NULL THEN NULL
                WHEN kind = 'text' THEN 'text'
                ELSE stream
            END AS stream,
            CASE WHEN is_kept AND fault IS NULL THEN ({_weight(settings)})::FLOAT END AS weight
        FROM ends
        """
    )


SELECTED = """
    SELECT record_id, variant_id, kind, stream, split, weight FROM outcome
    WHERE stream IS NOT NULL ORDER BY place
"""
"""The rows of `selection`."""

REJECTED = f"""
    SELECT record_id, CASE WHEN is_kept THEN variant_id END AS variant_id,
        NULL::VARCHAR AS kind, NULL::VARCHAR AS form, NULL::INTEGER AS attempt,
        'select' AS stage, fault.reason, fault.detail, fault.score, fault.threshold
    FROM outcome WHERE fault IS NOT NULL AND (is_kept OR variant_id = '{ORIGINAL}')
    ORDER BY place
"""
"""The rows of its rejects."""

_KEPT = """
    SELECT part, record_id, any_value(split) AS split, any_value(document) AS document,
        any_value(has_image) AS has_image, any_value(has_sound) AS has_sound,
        count(*) FILTER (kind = 'original') AS num_own,
        count(*) FILTER (kind = 'caption') AS num_written
    FROM judged WHERE refusal IS NULL AND fault IS NULL
    GROUP BY part, record_id HAVING bool_or(is_caption)
"""
"""The records that keep a caption."""

_BRIDGES = """
    SELECT part, variant_id, record_id AS one, next_id AS other
    FROM judged
        JOIN kept AS one USING (part, record_id)
        JOIN kept AS other ON other.part = judged.part AND other.record_id = judged.next_id
    WHERE refusal IS NULL AND fault IS NULL AND one.split = other.split
        AND one.has_image AND one.document IS NULL AND other.has_image AND other.document IS NULL
"""
"""The texts that lead from a record to another, both being there for a document."""


def _streams(mixed_share: float) -> str:
    """The stream of each record that is kept, one part at a time.

    The pieces of an interleaved document go into the mixed stream together, and so do the records
    that a text of the LLM leads from and to.
    """
    return f"""
        WITH bridged AS (
            SELECT part, one AS record_id FROM bridges UNION SELECT part, other FROM bridges
        ), described AS (
            SELECT kept.*, bridged.record_id IS NOT NULL AS is_bridged,
                has_image AND document IS NULL AS is_single,
                -- A document of which no picture is left is so many texts.
                bool_or(has_image) OVER (PARTITION BY part, document) AS is_illustrated
            FROM kept LEFT JOIN bridged USING (part, record_id)
        ), shares AS (
            SELECT part, count(*) FILTER (is_single) AS num_single,
                count(*) FILTER (is_bridged) AS num_bridged,
                greatest(0, '{mixed_share!r}'::DOUBLE * num_single - num_bridged)
                    / greatest(1, num_single - num_bridged) AS share
            FROM described GROUP BY part
        )
        SELECT part, record_id, num_own, num_written, CASE
            WHEN is_single AND (is_bridged OR {draw("stream", "record_id")} < share) THEN 'mixed'
            WHEN is_single THEN 'image'
            WHEN document IS NOT NULL AND is_illustrated THEN 'mixed'
            WHEN has_sound THEN 'audio'
            ELSE 'text'
        END AS stream
        FROM described JOIN shares USING (part)
    """


def _weight(settings: SelectSettings) -> str:
    """How often a caption is read: its part of the record's readings, times its scores' ramps."""
    own = f"CASE WHEN num_written > 0 THEN {settings.keep_original!r} ELSE 1 END"
    share = f"""
        CASE kind
            WHEN 'original' THEN {own} / num_own
            WHEN 'caption' THEN
                (CASE WHEN num_own > 0 THEN 1 - {settings.keep_original!r} ELSE 1 END) / num_written
        END
    """
    return " * ".join([share, *(_ramp(score, ramp) for score, ramp in settings.weights.items())])


def _ramp(score: str, ramp: Ramp) -> str:
    """A score's weight; 1 where it does not apply."""
    way = f"({score} - {ramp.low!r}) / {ramp.high - ramp.low!r}"
    return (
        f"coalesce({ramp.least!r} + (1 - {ramp.least!r}) * greatest(0, least(1, {way})), 1)::DOUBLE"
    )
