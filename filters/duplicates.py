"""Exact duplicates over the whole corpus: equal image bytes, or equal text where there is no image.

The record with the smallest id stays: an arbitrary rule, but one that every run decides alike
whatever the order of the parts.
"""

from pipeline.engine.stage import CorpusStepSpec

STEP = CorpusStepSpec(
    name="deduplicate",
    version=1,
    reads=("records",),
    writes="duplicates",
    sql="""
        WITH kept AS (
            SELECT coalesce(image_id, md5(caption)) AS content, min(record_id) AS record_id
            FROM records GROUP BY ALL HAVING count(*) > 1
        )
        SELECT records.part, records.record_id, kept.record_id AS duplicate_of
        FROM records JOIN kept ON coalesce(image_id, md5(caption)) = kept.content
        WHERE records.record_id != kept.record_id
    """,
)
