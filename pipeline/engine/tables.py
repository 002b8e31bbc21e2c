"""A table: a folder of Parquet files, one per part, with one Arrow schema.

The file is the commit: if `<part>.parquet` is there, the part is done. Every page has a checksum,
which readers check.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.engine.schemas import TABLES
from pipeline.engine.storage import committing, creating, is_local, with_listings
from pipeline.errors import FAILED, UserError


class DamagedFile(UserError):
    """A committed file that is not as it was written: cut short, or bits of it have changed."""

    def __init__(self, file: str, detail: str = "") -> None:
        shown = f": {detail}" if detail else ""
        hint = "Have it made again: anymix run RECIPE --repair"
        super().__init__(f"{file} is damaged{shown}", hint, exit_code=FAILED)


def part_path(folder: Path, part: str) -> Path:
    """Where a part of the table in `folder` lies."""
    return folder / f"{part}.parquet"


def write_table(
    path: Path, rows: pa.Table | Sequence[dict[str, object]], schema: pa.Schema
) -> None:
    """Commit rows as one Parquet file, in the place of what is there.

    Raises:
        pa.ArrowInvalid: when a row does not fit `schema`.
    """
    with committing(path) as temporary:
        _write(temporary, as_table(rows, schema))


def create_table(
    path: Path, rows: pa.Table | Sequence[dict[str, object]], schema: pa.Schema
) -> None:
    """Commit rows as one Parquet file, unless there is one: see `storage.creating`.

    Raises:
        pa.ArrowInvalid: when a row does not fit `schema`.
    """
    with creating(path) as temporary:
        _write(temporary, as_table(rows, schema))


def _write(path: Path, table: pa.Table) -> None:
    # No dictionary and no statistics for images: they only cost space in the footer.
    plain = [field.name for field in table.schema if not pa.types.is_binary(field.type)]
    pq.write_table(
        table,
        path,
        compression="zstd",
        use_dictionary=plain,
        write_statistics=plain,
        write_page_checksum=True,
    )


def as_table(rows: pa.Table | Sequence[dict[str, object]], schema: pa.Schema) -> pa.Table:
    """Rows with the columns of `schema`, in its order and types.

    Raises:
        pa.ArrowInvalid: when a row does not fit `schema`.
    """
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=schema)
    return table.select(schema.names).cast(schema)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one committed part, or some of its columns.

    Raises:
        DamagedFile: when it is no Parquet file, or a page does not have its checksum.
    """
    with path.open("rb") as stream:
        try:
            with pq.ParquetFile(stream, page_checksum_verification=True) as file:
                return file.read(columns=list(columns) if columns is not None else None)
        except (pa.ArrowException, OSError) as error:
            # Arrow's own are plain and have no number; those of the disk and of stores have.
            if isinstance(error, OSError) and (type(error) is not OSError or error.errno):
                raise
            raise DamagedFile(str(path), str(error).splitlines()[0]) from error


def connect(tables: Mapping[str, Iterable[Path]]) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with each table as a view over the files of its parts.

    The rows stay in DuckDB, which spills to the disk; take out what you need with `.fetchall()`,
    `.to_arrow_table()` or `.fetch_record_batch()`. A table without files is empty; each has a
    column `part` with the name of the file that a row is from.
    """
    connection = duckdb.connect()
    for name, paths in tables.items():
        given = list(paths)
        files = [str(path) for path in given]
        if given and not is_local(given[0]):
            store = with_listings(given)
            if not connection.filesystem_is_registered(store.protocol[0]):
                connection.register_filesystem(store)
        if files:
            rows = connection.read_parquet(files, filename=True)
            rows.project("*, parse_filename(filename, true) AS part").create_view(name)
        else:
            schema = _without_half_floats(TABLES[name].append(pa.field("part", pa.string())))
            connection.register(name, schema.empty_table())
    return connection


def _without_half_floats(schema: pa.Schema) -> pa.Schema:
    """The schema as DuckDB reads it: it takes fp16 from Parquet, as fp32, but not from Arrow."""
    half, single = pa.list_(pa.float16()), pa.list_(pa.float32())
    return pa.schema([field.with_type(single) if field.type == half else field for field in schema])
