"""The proof that nothing has vanished: every record and every text is in the shards or the rejects.

"Never in both and never in neither" is checked by counting, on the live tables and on what the
shards themselves hold, and the committed files are checked against their hashes.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from duckdb import DuckDBPyConnection

from pipeline.engine.corpus import Corpus
from pipeline.ledger.damage import Damage, damaged
from pipeline.ledger.live import missing

_NUM_EXAMPLES = 5
_ROWS_PER_BATCH = 10_000
_REPAIR = "Run `anymix run RECIPE --repair`: it removes them and does just these again."

_Counted = tuple[int, int, list[tuple[str, int]]]
"""How many were counted, how many of them not once, and a few of these with their count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that the audit looked at.

    Attributes:
        check: what was checked, as a sentence.
        checked: how many things were looked at.
        faults: how many were wrong.
        examples: a few of them.
        remedy: what to do about them.
    """

    check: str
    checked: int
    faults: int
    examples: tuple[str, ...] = ()
    remedy: str = ""


def audit(corpus: Corpus) -> list[Finding]:
    """Check a corpus; it is sound when no finding has faults.

    Where a table's file is damaged, the records are not counted: they cannot be read.
    """
    found = damaged(corpus)
    tables = [damage for damage in found if damage.kind == "table"]
    files = [_complete(corpus), _whole(corpus, found)]
    shards = [damage.path.name for damage in found if damage.kind == "shard"]
    if tables:
        return [*files, *_shard_files(corpus, shards)]
    connection = corpus.connect()
    return [
        *files,
        *_records(corpus, connection),
        _texts(connection),
        *_shard_files(corpus, shards),
        *_shard_members(corpus, connection, shards),
    ]


def _complete(corpus: Corpus) -> Finding:
    expected = sum(len(paths) for paths in corpus.tables.values())
    return _finding(
        "every part of every table is committed",
        expected,
        missing(corpus),
        "Run `anymix run RECIPE` to the end.",
    )


def _whole(corpus: Corpus, found: Sequence[Damage]) -> Finding:
    wrong = [
        f"{damage.path.relative_to(corpus.root)}: {damage.what}"
        for damage in found
        if damage.kind != "shard"
    ]
    tables = sum(len(corpus.files(table)) for table in corpus.tables)
    checked = tables + len(corpus.reject_files()) + len(corpus.models)
    return _finding("every committed file reads as it was written", checked, wrong, _REPAIR)


def _records(corpus: Corpus, connection: DuckDBPyConnection) -> Iterator[Finding]:
    """The records that the source holds against the shards and the rejects."""
    given = sum(part.num_records for part in corpus.parts)
    ((taken, refused),) = connection.sql(
        "SELECT (SELECT count(*) FROM records),"
        " (SELECT count(*) FROM rejects WHERE stage = 'ingest' AND variant_id IS NULL)"
    ).fetchall()
    seen = taken + refused
    lost = [f"the sources hold {given}, ingest saw {seen}"] if given != seen else []
    yield _finding("ingest took or rejected every record of the sources", given, lost)
    # Several stages may have rejected a record (one gave it up, another left it out): that is one
    # end. Two samples with the same record are two.
    counted = _count(
        connection,
        """
        WITH everything AS (
            SELECT record_id FROM records
            UNION ALL SELECT record_id FROM rejects WHERE stage = 'ingest' AND variant_id IS NULL
        ), ends AS (
            SELECT unnest(record_ids) AS record_id FROM samples
            UNION ALL SELECT DISTINCT record_id FROM rejects WHERE variant_id IS NULL
        )
        SELECT coalesce(everything.record_id, ends.record_id) AS name, count(ends.record_id) AS num
        FROM everything FULL JOIN ends USING (record_id)
        GROUP BY ALL
        """,
    )
    yield _counted("every record is in the shards or in the rejects, once", "record", counted)


def _texts(connection: DuckDBPyConnection) -> Finding:
    """The captions and variants of the records that were kept."""
    counted = _count(
        connection,
        """
        WITH dropped AS (SELECT record_id FROM rejects WHERE variant_id IS NULL),
        texts AS (
            SELECT record_id, variant_id FROM scores WHERE record_id NOT IN (FROM dropped)
        ), ends AS (
            -- A record's id holds no slash; the name of a further caption may.
            SELECT split_part(text, '/', 1) AS record_id,
                substr(text, strpos(text, '/') + 1) AS variant_id
            FROM (SELECT unnest(variant_ids) AS text FROM samples)
            UNION ALL
            SELECT record_id, variant_id FROM rejects
            WHERE stage IN ('select', 'shards') AND variant_id NOT NULL
        )
        SELECT record_id || '/' || variant_id AS name, count(ends.record_id) AS num
        FROM texts LEFT JOIN ends USING (record_id, variant_id)
        GROUP BY record_id, variant_id
        """,
    )
    check = "every text of a kept record is in the shards or in the rejects, once"
    return _counted(check, "text", counted)


def _count(connection: DuckDBPyConnection, sql: str) -> _Counted:
    """How often each name has an end, summed up in DuckDB: the driver holds no rows."""
    ((checked, faults, examples),) = connection.sql(
        f"""
        WITH counted AS ({sql}), wrong AS (FROM counted WHERE num != 1)
        SELECT (SELECT count(*) FROM counted), (SELECT count(*) FROM wrong),
            (SELECT list((name, num)) FROM (FROM wrong ORDER BY name LIMIT {_NUM_EXAMPLES}))
        """
    ).fetchall()
    return checked, faults, examples or []


def _counted(check: str, what: str, counted: _Counted) -> Finding:
    checked, faults, examples = counted
    words = [
        f"{what} {name} is in neither" if num == 0 else f"{what} {name} is there {num} times"
        for name, num in examples
    ]
    return Finding(check=check, checked=checked, faults=faults, examples=tuple(words))


def _shard_files(corpus: Corpus, damaged_shards: list[str]) -> Iterator[Finding]:
    """The tars against the manifest."""
    shards = corpus.published_shards()
    if shards is None:
        remedy = "Run `anymix run RECIPE` to the end."
        yield _finding("the shards have a manifest", 1, ["there is none"], remedy)
    else:
        check = "every shard has the SHA-256 of the manifest"
        yield _finding(check, len(shards), damaged_shards, _REPAIR)


def _shard_members(
    corpus: Corpus, connection: DuckDBPyConnection, damaged_shards: list[str]
) -> Iterator[Finding]:
    """What the tars hold against the table of samples, one shard's keys in memory at a time."""
    shards = corpus.published_shards()
    if corpus.shards is None or shards is None:
        return
    files = corpus.shards_of_now()
    unseen = {shard["file"] for shard in shards} - set(damaged_shards)
    samples = connection.sql("SELECT part, shard, key FROM samples ORDER BY part, shard")
    batches = samples.to_arrow_reader(_ROWS_PER_BATCH)
    rows = (row for batch in batches for row in batch.to_pylist())
    num_expected = 0
    wrong: list[str] = []
    for (part, name), given in groupby(rows, key=itemgetter("part", "shard")):
        file = files.get((part, name), f"{part}/{name}")
        if file in damaged_shards:
            continue
        expected = {row["key"] for row in given}
        found = set(_keys(corpus.shards / file)) if file in unseen else set()
        unseen.discard(file)
        num_expected += len(expected)
        wrong += [f"{file}: {key}" for key in sorted(expected ^ found)]
    wrong += [f"{file}: {key}" for file in sorted(unseen) for key in _keys(corpus.shards / file)]
    yield _finding("the shards hold the samples of the table, no more", num_expected, wrong)


def _keys(path: Path) -> Iterator[str]:
    with path.open("rb") as stream, tarfile.open(fileobj=stream) as tar:
        for member in tar:
            yield member.name.partition(".")[0]


def _finding(check: str, checked: int, faults: list[str], remedy: str = "") -> Finding:
    return Finding(
        check=check,
        checked=checked,
        faults=len(faults),
        examples=tuple(faults[:_NUM_EXAMPLES]),
        remedy=remedy if faults else "",
    )
