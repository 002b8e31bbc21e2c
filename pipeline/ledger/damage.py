"""Committed files that are not what was committed: cut short, or with flipped bits.

A file that is there counts as done, so that damage to it would stay for ever. It is found by the
checksums that were written with it (Parquet pages, models, shards), and repaired by removing the
file: the next run sees that it is missing and does it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.engine.corpus import MODEL_FILE, REMOVED_FILE, Corpus
from pipeline.engine.fingerprint import hash_file, hash_folder
from pipeline.engine.schemas import REJECTS, TABLES
from pipeline.engine.storage import read_json, remove


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A committed file that is damaged or lost.

    Attributes:
        path: the file; of a model, its folder.
        kind: what it is.
        what: what is wrong with it.
        remove: what has to go so that a run makes it again.
    """

    path: Path
    kind: Literal["table", "model", "shard", "description"]
    what: str
    remove: tuple[Path, ...]


def damaged(corpus: Corpus) -> list[Damage]:
    """Every damaged live file of a corpus. Reads all of them."""
    return [*_tables(corpus), *_rejects(corpus), *_models(corpus), *_shards(corpus)]


def repair(corpus: Corpus) -> list[Damage]:
    """Remove what is damaged, so that the next run does just that again; returns what it was."""
    found = damaged(corpus)
    for path in {path for damage in found for path in damage.remove}:
        remove(path)
    return found


def repair_descriptions(root: Path) -> list[Damage]:
    """Remove descriptions that cannot be read, with what they describe; returns what they were.

    A corpus with such a file cannot even be opened, so that `damaged` would not come to it.
    """
    models, shards = root.glob(f"models/*/*/{MODEL_FILE}"), root.glob("shards/*/*.json")
    found = [
        *(_unreadable(path, path.parent) for path in sorted(models)),
        *(_unreadable(path, *path.parent.glob("*.json")) for path in sorted(shards)),
    ]
    damages = [damage for damage in found if damage is not None]
    for path in {path for damage in damages for path in damage.remove}:
        remove(path)
    return damages


def table_fault(path: Path, schema: pa.Schema) -> str | None:
    """What is wrong with a Parquet file that should have `schema`; None when it reads well."""
    try:
        with (
            path.open("rb") as stream,
            pq.ParquetFile(stream, page_checksum_verification=True) as file,
        ):
            groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
            promised = file.metadata.num_rows
            table = file.read()
            table.validate(full=True)
    except Exception as error:  # noqa: BLE001 - a flipped bit raises a dozen unrelated types
        words = " ".join(str(error).split())[:200]
        return f"it cannot be read ({type(error).__name__}: {words})"
    if not (promised == table.num_rows == sum(groups)):
        return f"it should hold {promised} rows and holds {table.num_rows}"
    if not table.schema.equals(schema, check_metadata=False):
        return "its columns are not the table's"
    return None


def _unreadable(path: Path, *described: Path) -> Damage | None:
    try:
        read_json(path)
    except ValueError as error:
        return Damage(path=path, kind="description", what=f"no JSON: {error}", remove=described)
    return None


def _tables(corpus: Corpus) -> Iterator[Damage]:
    for table in corpus.tables:
        for path in corpus.files(table):
            fault = table_fault(path, TABLES[table])
            if fault:
                yield Damage(path=path, kind="table", what=fault, remove=(path,))


def _rejects(corpus: Corpus) -> Iterator[Damage]:
    """Rejects go with the table of their stage: only when that is missing are they written."""
    committed = {
        (path.parent.name, path.name): path
        for table in corpus.tables
        for path in corpus.files(table)
    }
    there = set(corpus.reject_files())
    for paths in corpus.rejects.values():
        for path in paths.values():
            table = committed.get((path.parent.name, path.name))
            if table is None:
                continue
            fault = table_fault(path, REJECTS) if path in there else "it is missing"
            if fault:
                yield Damage(path=path, kind="table", what=fault, remove=(table, path))


def _models(corpus: Corpus) -> Iterator[Damage]:
    for folder in corpus.models.values():
        if not folder.exists():
            continue
        try:
            content = read_json(folder / MODEL_FILE)["content"]
            there = (folder / REMOVED_FILE).exists()
            removed = read_json(folder / REMOVED_FILE) if there else {}
        except (OSError, ValueError, KeyError, TypeError):
            fault: str | None = "its description cannot be read"
        else:
            found = hash_folder(folder, leave_out={MODEL_FILE, REMOVED_FILE}, removed=removed)
            fault = None if found == content else "its files are not those that were fitted"
        if fault:
            yield Damage(path=folder, kind="model", what=fault, remove=(folder,))


def _shards(corpus: Corpus) -> Iterator[Damage]:
    """A shard is written with its part of `samples`, so that goes."""
    for shard in corpus.published_shards() or []:
        assert corpus.shards is not None  # noqa: S101 - it has a manifest
        path = corpus.shards / shard["file"]
        files = {path: shard["sha256"], path.with_suffix(".index"): shard["index_sha256"]}
        live = corpus.tables.get("samples")
        is_of_now = live is not None and live.prints.get(shard["part"]) == shard["samples"]
        samples = live[shard["part"]] if live is not None and is_of_now else None
        for file, sha256 in files.items():
            if not file.exists():
                fault = "it is missing"
            elif hash_file(file) != sha256:
                fault = "its SHA-256 is not the manifest's"
            else:
                continue
            gone = (file, samples) if samples else (file,)
            yield Damage(path=file, kind="shard", what=fault, remove=gone)
