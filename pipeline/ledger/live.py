"""The live files of a corpus, as every question about it needs them."""

from __future__ import annotations

import duckdb

from pipeline.engine.corpus import Corpus
from pipeline.engine.schemas import TABLES
from pipeline.engine.tables import connect

WHOLE = ("records", "scores", "selection", "tokens", "samples")
"""The tables of a corpus that is filled to its end."""


def connect_live(corpus: Corpus) -> duckdb.DuckDBPyConnection:
    """One connection over the live tables, by name, and `rejects`, for as many queries as wanted.

    `Corpus.query` lists the files and opens a connection for each query.
    """
    named = {table: corpus.files(table) for table in TABLES if table != "rejects"}
    return connect({**named, "rejects": corpus.reject_files()})


def missing(corpus: Corpus) -> list[str]:
    """What keeps a corpus from being filled to its end, as `table/fingerprint/file` or in words."""
    files = [
        f"{table}/{path.parent.name}/{path.name}"
        for table, paths in corpus.tables.items()
        for path in sorted(set(paths.values()) - set(corpus.files(table)))
    ]
    tables = [f"the whole table {table}" for table in WHOLE if table not in corpus.tables]
    manifest = [] if corpus.published_shards() is not None else ["the shards' manifest"]
    return [*files, *tables, *manifest]
