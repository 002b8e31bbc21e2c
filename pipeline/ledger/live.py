"""Whether a corpus is filled to its end."""

from __future__ import annotations

from pipeline.engine.corpus import Corpus

WHOLE = ("records", "pictures", "scores", "selection", "tokens", "samples")
"""The tables of a corpus that is filled to its end."""


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
