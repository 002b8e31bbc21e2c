"""Everything that happened to one record, and why."""

from __future__ import annotations

from typing import Any

from duckdb import DuckDBPyConnection, DuckDBPyRelation

from pipeline.engine.corpus import Corpus
from pipeline.engine.forgotten import read_forgotten
from pipeline.engine.parts import record_id
from pipeline.engine.schemas import TABLES
from pipeline.engine.tables import connect
from pipeline.errors import UserError
from pipeline.ledger.events import of_part
from pipeline.words import why

_MIN_PREFIX = 6
_NUM_NAMED = 10

Row = dict[str, Any]

_SHOWN_OF_PICTURES = "* EXCLUDE (perceptual_hash, image_feature)"


def explain(corpus: Corpus, name: str) -> Row:
    """The story of one record as JSON.

    Args:
        corpus: where it is looked for.
        name: its `record_id`, its `key` or `source/key`, or the first digits of its `image_id`.

    Raises:
        UserError: when there is no such record, or more than one.
    """
    connection = corpus.connect()
    record, part = _find(corpus, connection, name)
    # One part's files answer the rest, whatever the size of the corpus.
    own = connect(
        {
            **{
                table: [paths[part]]
                for table, paths in corpus.tables.items()
                if part in paths and paths[part].exists()
            },
            "rejects": [path for path in corpus.reject_files() if path.stem == part],
        }
    )
    mine = f"record_id = '{record}'"
    records = _rows(
        own, corpus, "records", f"SELECT * EXCLUDE (image, sound) FROM records WHERE {mine}"
    )
    image = records[0]["image_id"] if records else None
    story = {
        "record_id": record,
        "part": _part(corpus, part),
        "record": records[0] if records else None,
        **{
            table: _rows(own, corpus, table, f"SELECT * FROM {table} WHERE {mine}")
            for table in ("variants", "selection")
        },
        "pictures": _rows(
            own, corpus, "pictures", f"SELECT {_SHOWN_OF_PICTURES} FROM pictures WHERE {mine}"
        ),
        "scores": _rows(
            own, corpus, "scores", f"SELECT * EXCLUDE (text_feature) FROM scores WHERE {mine}"
        ),
        "duplicate_of": [
            row["duplicate_of"]
            for row in _rows(own, corpus, "duplicates", f"SELECT * FROM duplicates WHERE {mine}")
        ],
        "stands_for": [
            row["record_id"]
            for row in _dicts(
                connection.sql(f"SELECT * FROM duplicates WHERE duplicate_of = '{record}'")
            )
        ],
        **{
            table: _rows(own, corpus, table, f"SELECT * EXCLUDE (codes) FROM {table} WHERE {its}")
            for table, its in (("tokens", f"image_id = '{image}'"), ("audio_tokens", mine))
        },
        "samples": _samples(own, corpus, part, record),
        "rejects": _rejects(own, mine),
        "events": list(of_part(corpus.root, part)),
    }
    return {**story, "outcome": outcome(story)}


def _samples(connection: DuckDBPyConnection, corpus: Corpus, part: str, record: str) -> list[Row]:
    """The samples that hold the record, and then those of texts about its subject.

    Each with the file that it is in; without those whose shard is not published.
    """
    files = corpus.shards_of_now()
    samples = _rows(
        connection,
        corpus,
        "samples",
        f"""
        SELECT key, stream, split, shard FROM samples
        WHERE list_contains(record_ids, '{record}')
            OR len(list_filter(variant_ids, lambda text: starts_with(text, '{record}/'))) > 0
        ORDER BY NOT list_contains(record_ids, '{record}'), key
        """,
    )
    return [
        {**row, "shard": files[part, row["shard"]]}
        for row in samples
        if (part, row["shard"]) in files
    ]


def _rejects(connection: DuckDBPyConnection, mine: str) -> list[Row]:
    """What was left out of the record, each with the reason in words."""
    rows = _dicts(connection.sql(f"SELECT * EXCLUDE (part) FROM rejects WHERE {mine}"))
    return [{**row, "why": why(row)} for row in rows]


def outcome(story: Row) -> str:
    """What became of the record, in a sentence."""
    whole = [row for row in story["rejects"] if row["variant_id"] is None]
    if whole:
        return f"It was left out by {whole[0]['stage']}: {whole[0]['why']}."
    if story["samples"]:
        sample = story["samples"][0]
        return f"It is in the shards: {sample['shard']}, sample {sample['key']}."
    if story["selection"]:
        return "It was selected; its shard has not been written yet."
    return "It is on its way: no stage has decided on it yet."


def _find(corpus: Corpus, connection: DuckDBPyConnection, name: str) -> tuple[str, str]:
    """Id and part of the one record that `name` means."""
    ids = [name, *(record_id(source, name) for source in _sources(corpus))]
    source, _, key = name.partition("/")
    ids.append(record_id(source, key))
    prefix = name if len(name) >= _MIN_PREFIX else None
    rows = connection.execute(
        """
        SELECT record_id, part FROM records
        WHERE record_id IN (SELECT unnest($ids)) OR key = $name OR starts_with(image_id, $prefix)
        UNION SELECT record_id, part FROM rejects WHERE record_id IN (SELECT unnest($ids))
        ORDER BY ALL
        """,
        {"ids": ids, "name": name, "prefix": prefix},
    ).fetchall()
    exact = [row for row in rows if row[0] == name] or rows
    if len({record for record, _ in exact}) > 1:
        named = ", ".join(record for record, _ in exact[:_NUM_NAMED])
        raise UserError(f"{name} means {len(exact)} records", f"Give the id of one: {named}")
    if not exact:
        raise UserError(f"there is no record {name} in {corpus.root}", _where(corpus, name, ids))
    record, part = exact[0]
    return str(record), str(part)


def _where(corpus: Corpus, name: str, ids: list[str]) -> str:
    """Where a record was looked for in vain."""
    forgotten = read_forgotten(corpus.root)
    source, _, key = name.partition("/")
    if any(forgotten.covers(source=source, key=key, record_id=each, image_id=name) for each in ids):
        return "It is on the list of what this corpus was asked to forget."
    num_parts, num_rejects = len(corpus.files("records")), len(corpus.reject_files())
    return (
        f"Looked for its record_id, key and image_id in {num_parts} parts of the records, in"
        f" {num_rejects} files of rejects and on the list of forgotten records."
        f" An image_id may be cut to its first {_MIN_PREFIX} digits, no shorter."
    )


def _sources(corpus: Corpus) -> set[str]:
    return {part.source for part in corpus.parts}


def _part(corpus: Corpus, name: str) -> Row:
    (part,) = (part for part in corpus.parts if part.name == name)
    return {
        "name": part.name,
        "source": part.source,
        "slice": part.slice,
        "num_records": part.num_records,
    }


def _rows(own: DuckDBPyConnection, corpus: Corpus, table: str, sql: str) -> list[Row]:
    """Rows of a table of the part; none where the table has not been written."""
    if (
        table not in corpus.tables
        or not own.sql(f"SELECT 1 FROM duckdb_views() WHERE view_name = '{table}'").fetchall()
    ):
        return []
    rows = _dicts(own.sql(sql))
    return [{name: row[name] for name in TABLES[table].names if name in row} for row in rows]


def _dicts(rows: DuckDBPyRelation) -> list[Row]:
    names = rows.columns
    return [
        {name: value for name, value in zip(names, row, strict=True) if name != "filename"}
        for row in rows.fetchall()
    ]
