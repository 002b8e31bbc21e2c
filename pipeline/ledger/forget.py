"""Takes records out of every table file of a corpus, live or of an earlier recipe.

The tries of parts under way go, too: a traceback may hold anything.

Only files that hold them are written again, in place: the same path, fewer rows. The records table
goes last, because it tells which records there are: a forget that is killed finds again what it had
not finished. `jobs.forgetting` adds the shards, whose format is not known here.

Pictures beside a model (`models/vq/*/reconstructions.png`) show records, and nothing says which:
they go with the first image that is forgotten, and the model stays what it was.

Two things remain on purpose. `parts.parquet` names the first and the last record of a part of a
folder, which are names of files: the part is found again in its source by them, until a run after
the source has lost these files. `forgotten.parquet` keeps what was asked for, so that it does not
come back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.attempts import ATTEMPTS_FOLDER
from pipeline.engine.corpus import REMOVED_FILE
from pipeline.engine.events import EVENTS_FILE
from pipeline.engine.fingerprint import hash_file
from pipeline.engine.forgotten import Forgotten
from pipeline.engine.schemas import REJECTS, TABLES, reject
from pipeline.engine.storage import commit_json, committing, read_json, remove
from pipeline.engine.tables import connect, part_path, read_table, write_table
from pipeline.synthesis import answers

REASON = "ingest-forgotten"
Found = Mapping[str, Mapping[str, str | None]]
"""For each part that holds such records, their ids and images."""

_HASHES = re.compile(r"[0-9a-f]{16,64}")


def find_records(root: Path, forgotten: Forgotten) -> Found:
    """The records of a corpus that must go, in any committed file of `records` or ingest's rejects.

    A reject of ingest says no more of its source than its detail does, which starts with the key.
    """
    found: dict[str, dict[str, str | None]] = {}
    for folder in _folders(root / "tables" / "records"):
        rows = _matching(
            forgotten, folder, "part, record_id, image_id, source || '/' || key AS name, origin"
        )
        for part, record_id, image_id in rows:
            found.setdefault(part, {})[record_id] = image_id
    rejected = (
        "part, record_id, NULL::VARCHAR AS image_id, NULL::VARCHAR AS origin,"
        " regexp_replace(part, '-[0-9a-f]+$', '') || '/' || detail AS name, reason"
    )
    for folder in _folders(root / "tables" / "rejects-ingest"):
        for part, record_id, _ in _matching(forgotten, folder, rejected, f"reason != '{REASON}'"):
            found.setdefault(part, {}).setdefault(record_id, None)
    return found


def take_out(root: Path, found: Found) -> None:
    """Take records out of every table file that holds them, and out of the events."""
    ids = {record_id for records in found.values() for record_id in records}
    images = {image for records in found.values() for image in records.values() if image}
    _take_out_of_duplicates(root / "tables", ids)
    _take_out_of_events(root / EVENTS_FILE, ids | images)
    if images:
        _take_out_of_models(root / "models")
    for part in found:
        # What a try ended at may be said in the words of a record; the part's tries begin again.
        for folder in _folders(root / ATTEMPTS_FOLDER):
            (folder / f"{part}.json").unlink(missing_ok=True)
    files = _files_by_part(root / "tables", found.keys())
    for part, records in found.items():
        for folder in _folders(root / answers.FOLDER):
            remove(folder / part)  # of a part under way: it is asked anew
        _take_out_of_part(files[part], records)


def _matching(
    forgotten: Forgotten, folder: Path, columns: str, condition: str = "true"
) -> list[tuple[str, str, str | None]]:
    """Part, record and image of the rows of one folder of files that are to be forgotten."""
    connection = connect({"rows": sorted(folder.glob("*.parquet"))})
    ids = [("record_id", value) for value in forgotten.record_ids]
    ids += [("image_id", value) for value in forgotten.image_ids]
    wanted = pa.table(
        {
            "kind": pa.array([kind for kind, _ in ids], pa.string()),
            "value": pa.array([value for _, value in ids], pa.string()),
        }
    )
    connection.register("wanted", wanted)
    prefixes = pa.table({"prefix": pa.array(forgotten.source_prefixes, pa.string())})
    connection.register("prefixes", prefixes)
    # Of prefixes none of which begins with another, only the last one before a name can be its own.
    return connection.execute(
        f"""
        SELECT part, record_id, image_id FROM (SELECT {columns} FROM rows) AS held
        ASOF LEFT JOIN prefixes AS of_name ON held.name >= of_name.prefix
        ASOF LEFT JOIN prefixes AS of_origin ON held.origin >= of_origin.prefix
        WHERE ({condition}) AND (
            record_id IN (SELECT value FROM wanted WHERE kind = 'record_id')
            OR image_id IN (SELECT value FROM wanted WHERE kind = 'image_id')
            OR starts_with(name, of_name.prefix) OR starts_with(origin, of_origin.prefix)
        )
        """
    ).fetchall()


def _take_out_of_duplicates(tables: Path, ids: Set[str]) -> None:
    """Let the duplicates of what is forgotten come back.

    The files are named by their content, so those with such a row go, and so do the indexes that
    say that the step is done. What was rejected because of such a row names the record that stays.
    """
    for index in tables.glob("duplicates/index-*.json"):
        index.unlink()
    connection = connect({"duplicates": sorted(tables.glob("duplicates/*/*.parquet"))})
    connection.register("gone", pa.table({"id": pa.array(sorted(ids), pa.string())}))
    rows = connection.sql(
        "SELECT DISTINCT filename.split('/')[-2], part FROM duplicates"
        " WHERE record_id IN (FROM gone) OR duplicate_of IN (FROM gone)"
    ).fetchall()
    for print_, part in rows:
        part_path(tables / "duplicates" / print_, part).unlink()
    stale = {part for _, part in rows}
    rejects = [path for path in tables.glob("rejects-*/*/*.parquet") if path.stem in stale]
    for path in rejects:
        table = read_table(path)
        words = [word or "" for word in table["detail"].to_pylist()]
        speaks = [not ids.isdisjoint(_HASHES.findall(word)) for word in words]
        _keep(path, "rejects", table, pa.array(speaks, pa.bool_()))


def _take_out_of_events(path: Path, ids: Set[str]) -> None:
    """Drop the lines about them: an error's text may hold anything."""
    if not path.exists():
        return
    with path.open("r", encoding="utf-8") as stream:
        if all(ids.isdisjoint(_HASHES.findall(line)) for line in stream):
            return
    with committing(path) as temporary, path.open("r", encoding="utf-8") as stream:
        kept = (line for line in stream if ids.isdisjoint(_HASHES.findall(line)))
        with temporary.open("w", encoding="utf-8") as out:
            out.writelines(kept)


def _take_out_of_models(models: Path) -> None:
    """Remove the pictures beside all models; nothing reads them but people and the report.

    They are part of the hash of the model's files, which names all that it has made, so their own
    hashes stay: with these the other files can still be checked.
    """
    for kind in _folders(models):
        for folder in _folders(kind):
            pictures = sorted(folder.glob("*.png"))
            if pictures:
                path = folder / REMOVED_FILE
                before = read_json(path) if path.exists() else {}
                hashes = {picture.name: hash_file(picture) for picture in pictures}
                commit_json(path, {**before, **hashes})
            for picture in pictures:
                picture.unlink()


def _take_out_of_part(
    files: Mapping[str, Sequence[Path]], records: Mapping[str, str | None]
) -> None:
    """Take the records of one part out of all its files; those of `records` go last."""
    images = set(records.values()) - {None} - set(_other_images(files.get("records", ()), records))
    gone: dict[str, Set[str | None]] = {
        "record_id": set(records),
        "next_id": set(records),
        "image_id": images,
        "variant_id": set(_leading_to(files, records)),
    }
    for table, paths in files.items():
        for path in paths:
            if table == "samples":
                path.unlink()
            elif table == "rejects-ingest":
                _reject(path, files.get("records", ()), records)
            elif table not in {"records", "variants", "answers", "duplicates"}:
                _filter(path, table, gone)
    # Last what tells which rows of the others there are.
    for table in ("variants", "answers", "records"):
        for path in files.get(table, ()):
            _filter(path, table, gone)


def _leading_to(
    files: Mapping[str, Sequence[Path]], records: Mapping[str, str | None]
) -> Iterator[str]:
    """The texts of other records that lead to one of these, and so name it; taken or refused."""
    for path in files.get("variants", ()):
        for row in read_table(path).to_pylist():
            if row.get("next_id") in records:  # a table of an earlier version has no such column
                yield row["variant_id"]
    leading = {
        (row["record_id"], row["attempt"])
        for path in files.get("answers", ())
        for row in read_table(path).to_pylist()
        if row.get("next_id") in records
    }
    for path in files.get("rejects-synthesize", ()):
        columns = ["record_id", "attempt", "kind", "variant_id"]
        for row in read_table(path, columns).to_pylist():
            if row["kind"] == "interleave" and (row["record_id"], row["attempt"]) in leading:
                yield row["variant_id"]


def _other_images(paths: Sequence[Path], records: Mapping[str, str | None]) -> Iterator[str]:
    """The images of the part's other records: their tokens stay."""
    for path in paths:
        for row in read_table(path, ["record_id", "image_id"]).to_pylist():
            if row["record_id"] not in records and row["image_id"]:
                yield row["image_id"]


def _filter(path: Path, table: str, gone: Mapping[str, Set[str | None]]) -> None:
    """Take the rows out of a file that have one of these values, by column.

    Pictures count by their image where no record is named.
    """
    rows = read_table(path)
    columns = [name for name in gone if name in rows.column_names]
    if "record_id" in columns:
        columns = [name for name in columns if name != "image_id"]
    if not columns:
        return
    hit = pa.array([False] * rows.num_rows, pa.bool_())
    for name in columns:
        values = pa.array(sorted(filter(None, gone[name])), pa.string())
        hit = pc.or_(hit, pc.is_in(rows[name], values))
    _keep(path, "rejects" if table.startswith("rejects-") else table, rows, hit)


def _keep(path: Path, table: str, rows: pa.Table, hit: pa.Array) -> None:
    """Commit a file anew without the rows that are hit, if there are any."""
    kept = rows.filter(pc.invert(hit))
    if kept.num_rows == rows.num_rows:
        return
    known = TABLES.get(table)
    # A file of an earlier version has the columns of that version.
    is_current = known is not None and known.equals(rows.schema, check_metadata=False)
    write_table(path, kept, known if known is not None and is_current else rows.schema)


def _reject(path: Path, tables: Sequence[Path], records: Mapping[str, str | None]) -> None:
    """Leave one reject for each record that the file's table or the file itself has of it."""
    rows = read_table(path).to_pylist()
    mine = {row["record_id"] for row in rows} & records.keys()
    for table in tables:
        if table.parent.name == path.parent.name:
            mine |= set(read_table(table, ["record_id"])["record_id"].to_pylist()) & records.keys()
    left = [
        reject(record_id=record_id, stage="ingest", reason=REASON) for record_id in sorted(mine)
    ]
    kept = [row for row in rows if row["record_id"] not in mine]
    if [*kept, *left] != rows:
        write_table(path, [*kept, *left], REJECTS)


def _files_by_part(tables: Path, parts: Set[str]) -> dict[str, dict[str, list[Path]]]:
    """For some parts, their files by table, of whatever fingerprint."""
    files: dict[str, dict[str, list[Path]]] = {part: {} for part in parts}
    for table in _folders(tables):
        for folder in _folders(table):
            names = {path.name for path in folder.iterdir()}
            for part in parts:
                path = part_path(folder, part)
                if path.name in names:
                    files[part].setdefault(table.name, []).append(path)
    return files


def _folders(parent: Path) -> list[Path]:
    if not parent.exists():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir())
