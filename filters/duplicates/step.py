"""Exact duplicates over the whole corpus: equal image bytes, or equal text where there is no image.

The record with the smallest id stays: an arbitrary rule, but one that every run decides alike
whatever the order of the parts.
"""

from __future__ import annotations

from duckdb import DuckDBPyRelation

from filters.duplicates.settings import DuplicateSettings
from pipeline.engine.stage import FitInputs
from pipeline.engine.tables import connect


def find_duplicates(settings: DuplicateSettings, inputs: FitInputs) -> DuckDBPyRelation:
    """The rows of `duplicates`, and the `part` of each."""
    image = "image_id" if settings.bytes else "NULL"
    text = "CASE WHEN image_id IS NULL THEN md5(caption) END" if settings.texts else "NULL"
    return connect(inputs.tables).sql(
        f"""
        WITH contents AS (
            SELECT part, record_id, coalesce({image}, {text}, record_id) AS content FROM records
        ), firsts AS (
            SELECT *, min(record_id) OVER (PARTITION BY content) AS duplicate_of FROM contents
        )
        SELECT part, record_id, duplicate_of FROM firsts WHERE record_id != duplicate_of
        """
    )
