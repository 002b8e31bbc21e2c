"""The proof that nothing has vanished: every record and every text is in the shards or the rejects.

"Never in both and never in neither" is checked by counting, on the live tables and on what the
shards themselves hold, and the committed files are checked against their hashes.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.engine.corpus import Corpus
from pipeline.engine.fingerprint import hash_file

_NUM_EXAMPLES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that the audit looked at.

    Attributes:
        check: what was checked, as a sentence.
        checked: how many things were looked at.
        faults: how many were wrong.
        examples: a few of them.
    """

    check: str
    checked: int
    faults: int
    examples: tuple[str, ...] = ()


def audit(corpus: Corpus) -> list[Finding]:
    """Check a corpus; it is sound when no finding has faults."""
    return [_complete(corpus), *_records(corpus), _texts(corpus), *_shards(corpus)]


def _complete(corpus: Corpus) -> Finding:
    missing = [
        f"{table}/{path.parent.name}/{path.name}"
        for table, paths in corpus.tables.items()
        for path in sorted(set(paths.values()) - set(corpus.files(table)))
    ]
    whole = ("records", "scores", "selection", "tokens", "samples")
    missing += [f"the whole table {table}" for table in whole if table not in corpus.tables]
    expected = sum(len(paths) for paths in corpus.tables.values())
    return _finding("every part of every table is committed", expected, missing)


def _records(corpus: Corpus) -> Iterator[Finding]:
    """The records that the source holds against the shards and the rejects."""
    given = sum(part.num_records for part in corpus.parts)
    ((taken,),) = corpus.query("SELECT count(*) FROM records").fetchall()
    ((refused,),) = corpus.query("SELECT count(*) FROM rejects WHERE stage = 'ingest'").fetchall()
    seen = taken + refused
    lost = [f"the sources hold {given}, ingest saw {seen}"] if given != seen else []
    yield _finding("ingest took or rejected every record of the sources", given, lost)
    rows = corpus.query(
        """
        WITH everything AS (
            SELECT record_id FROM records
            UNION ALL SELECT record_id FROM rejects WHERE stage = 'ingest'
        ), ends AS (
            SELECT unnest(record_ids) AS record_id FROM samples
            UNION ALL SELECT record_id FROM rejects WHERE variant_id IS NULL
        )
        SELECT coalesce(everything.record_id, ends.record_id), count(ends.record_id)
        FROM everything FULL JOIN ends USING (record_id)
        GROUP BY ALL
        """
    ).fetchall()
    wrong = [
        f"record {record} is in neither"
        if count == 0
        else f"record {record} is there {count} times"
        for record, count in rows
        if count != 1
    ]
    yield _finding("every record is in the shards or in the rejects, once", len(rows), wrong)


def _texts(corpus: Corpus) -> Finding:
    """The captions and variants of the records that were kept."""
    rows = corpus.query(
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
            SELECT record_id, variant_id FROM rejects WHERE stage = 'select' AND variant_id NOT NULL
        )
        SELECT record_id, variant_id, count(ends.record_id)
        FROM texts LEFT JOIN ends USING (record_id, variant_id)
        GROUP BY ALL
        """
    ).fetchall()
    wrong = [f"text {record}/{text}: {count} times" for record, text, count in rows if count != 1]
    return _finding("every text of a kept record is in the shards or in the rejects, once",
                    len(rows), wrong)  # fmt: skip


def _shards(corpus: Corpus) -> Iterator[Finding]:
    """The tars against the manifest and against the table of samples."""
    shards = corpus.published_shards()
    if corpus.shards is None or shards is None:
        yield _finding("the shards have a manifest", 1, ["there is none"])
        return
    damaged = [
        shard["file"]
        for shard in shards
        if not (corpus.shards / shard["file"]).exists()
        or hash_file(corpus.shards / shard["file"]) != shard["sha256"]
    ]
    yield _finding("every shard has the SHA-256 of the manifest", len(shards), damaged)
    expected = set(corpus.query("SELECT shard, key FROM samples").fetchall())
    found = {
        (shard["file"], key)
        for shard in shards
        if shard["file"] not in damaged
        for key in _keys(corpus.shards / shard["file"])
    }
    wrong = [f"{shard}: {key}" for shard, key in sorted(expected ^ found)]
    yield _finding("the shards hold the samples of the table, no more", len(expected), wrong)


def _keys(path: Path) -> Iterator[str]:
    with tarfile.open(path) as tar:
        for member in tar:
            yield member.name.partition(".")[0]


def _finding(check: str, checked: int, faults: list[str]) -> Finding:
    return Finding(
        check=check, checked=checked, faults=len(faults), examples=tuple(faults[:_NUM_EXAMPLES])
    )
