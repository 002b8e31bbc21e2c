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
    manifest, samples = corpus.manifest(), corpus.tables.get("samples")
    if manifest is None:
        return [*files, *tables, "the shards' manifest"]
    if samples is not None and manifest["samples"] != samples.fingerprint():
        return [*files, *tables, "the manifest of the shards that the samples name"]
    return [*files, *tables]
