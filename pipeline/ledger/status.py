"""How far a corpus is: parts per table, rows, and what was left out for which reason."""

from __future__ import annotations

from typing import Any

from pipeline.engine.corpus import Corpus


def status(corpus: Corpus) -> dict[str, Any]:
    """The state of a corpus as JSON.

    Returns:
        `num_parts`, `num_records` as the sources hold them, `tables` (name -> parts done and rows),
        `models` (name -> fingerprint) and `rejects` (stage, reason, and how many records or texts).
    """
    tables = {}
    for table in corpus.tables:
        ((rows,),) = corpus.query(f"SELECT count(*) FROM {table}").fetchall()
        tables[table] = {"parts_done": len(corpus.files(table)), "rows": rows}
    rejects = corpus.query(
        """
        SELECT stage, reason, count(*) FILTER (variant_id IS NULL) AS records,
               count(variant_id) AS texts
        FROM rejects GROUP BY ALL ORDER BY ALL
        """
    ).fetchall()
    streams = corpus.query(
        "SELECT stream, split, count(*), sum(len(record_ids))::BIGINT"
        " FROM samples GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    return {
        "corpus": str(corpus.root),
        "num_parts": len(corpus.parts),
        "num_records": sum(part.num_records for part in corpus.parts),
        "tables": tables,
        "models": {name: folder.name for name, folder in corpus.models.items()},
        "rejects": [
            {"stage": stage, "reason": reason, "records": records, "texts": texts}
            for stage, reason, records, texts in rejects
        ],
        "samples": [
            {"stream": stream, "split": split, "samples": samples, "records": records}
            for stream, split, samples, records in streams
        ],
    }
