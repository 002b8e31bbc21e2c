"""Rows of a Parquet file: row groups are hashed as bytes, and decoded only where asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.engine.fingerprint import fingerprint
from pipeline.sources.columns import refuse_twins
from pipeline.sources.files import Problem

DAMAGES = (pa.ArrowException, OSError, ValueError, ArithmeticError)
"""What Arrow raises on damaged files, and Python on their names and offsets."""
ROWS_PER_BATCH = 64
"""Rows in memory at once: with a photograph of some megabytes in each, still a few hundred."""

Row = dict[str, Any]
Choose = Callable[[Sequence[str]], Sequence[str]]
"""Which of a file's columns are used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """One row group: its length, and the hash of the bytes of the columns that are used."""

    num_rows: int
    size_bytes: int
    content: str


def list_groups(path: Path, choose: Choose) -> list[RowGroup] | Problem:
    """The row groups of a file in order; a file without a whole footer is a problem.

    Raises:
        OSError: when the file cannot be opened or read.
        UserError: when two columns have a name that is used.
    """
    with path.open("rb") as stream:
        try:
            return _groups(path, stream, choose)
        except DAMAGES as error:
            return problem_of_damage(error)


def _groups(path: Path, stream: IO[bytes], choose: Choose) -> list[RowGroup]:
    file = pq.ParquetFile(stream)
    names = _present(file, choose)
    refuse_twins(path, file.schema_arrow.names, names)
    types = {name: str(file.schema_arrow.field(name).type) for name in names}
    found = []
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        chunks = [group.column(index) for index in range(group.num_columns)]
        used = [chunk for chunk in chunks if _is_of(chunk.path_in_schema, types)]
        found.append(
            RowGroup(
                num_rows=group.num_rows,
                size_bytes=sum(chunk.total_compressed_size for chunk in used),
                content=fingerprint(types=types, chunks=[_hash(stream, c) for c in used]),
            )
        )
    return found


def shape_of(path: Path) -> tuple[list[str], list[int]] | Problem:
    """The columns of a file and the lengths of its row groups; without a whole footer a problem.

    Raises:
        OSError: when the file cannot be opened or read.
    """
    with path.open("rb") as stream:
        try:
            file = pq.ParquetFile(stream)
        except DAMAGES as error:
            return problem_of_damage(error)
        groups = range(file.metadata.num_row_groups)
        lengths = [file.metadata.row_group(number).num_rows for number in groups]
        return list(file.schema_arrow.names), lengths


def column_names(path: Path) -> list[str]:
    """The columns of a file; none where it has no whole footer.

    Raises:
        OSError: when the file cannot be opened or read.
    """
    shape = shape_of(path)
    return [] if isinstance(shape, Problem) else shape[0]


def read_all(path: Path) -> Iterator[Row | Problem]:
    """All rows with all columns; a file without a whole footer is one problem."""
    groups = list_groups(path, lambda _: [])
    if isinstance(groups, Problem):
        yield groups
        return
    yield from read_rows(path, 0, sum(group.num_rows for group in groups), lambda names: names)


def read_rows(path: Path, first_row: int, num_rows: int, choose: Choose) -> Iterator[Row | Problem]:
    """A run of rows; where a row group is damaged, each of its rows from there on is a problem."""
    with path.open("rb") as stream:
        file = pq.ParquetFile(stream)
        names = _present(file, choose)
        start = 0
        for number in range(file.metadata.num_row_groups):
            length = file.metadata.row_group(number).num_rows
            first, last = max(first_row, start), min(first_row + num_rows, start + length)
            if first < last:
                yield from _read_group(file, number, names, slice(first - start, last - start))
            start += length


def _read_group(
    file: pq.ParquetFile, number: int, names: Sequence[str], wanted: slice
) -> Iterator[Row | Problem]:
    if not names:  # none of the columns is there: rows of nothing
        yield from ({} for _ in range(wanted.start, wanted.stop))
        return
    passed, given, detail = 0, wanted.start, "the row group ends early"
    try:
        for batch in file.iter_batches(ROWS_PER_BATCH, row_groups=[number], columns=list(names)):
            skipped = given - passed
            passed += batch.num_rows
            if passed > given:
                for row in to_rows(batch.slice(skipped, wanted.stop - given)):
                    yield row
                    given += 1
            if given == wanted.stop:
                return
    except DAMAGES as error:
        detail = problem_of_damage(error).detail
    for _ in range(given, wanted.stop):
        yield Problem(reason="ingest-row-unreadable", detail=detail)


def to_rows(batch: pa.RecordBatch) -> Iterator[Row | Problem]:
    """The rows of a batch; one with a value that Python cannot hold is a problem."""
    try:
        yield from batch.to_pylist()
        return
    except ValueError:  # text that is no UTF-8, or a time that Python does not know: find the row
        pass
    for index in range(batch.num_rows):
        try:
            yield {name: _value(batch.column(name)[index]) for name in batch.schema.names}
        except (ValueError, OverflowError) as error:
            detail = f"a value that cannot be read: {error}"
            yield Problem(reason="ingest-wrong-type", detail=detail)


def _value(scalar: pa.Scalar) -> object:
    """The value; text that is no UTF-8 is decoded with `surrogateescape`."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        if not isinstance(scalar, pa.StringScalar | pa.LargeStringScalar):
            raise
        return scalar.as_buffer().to_pybytes().decode("utf-8", "surrogateescape")


def _present(file: pq.ParquetFile, choose: Choose) -> list[str]:
    there = file.schema_arrow.names
    return [name for name in dict.fromkeys(choose(there)) if name in there]


def _is_of(path: str, names: dict[str, str]) -> bool:
    """Whether a leaf of the Parquet schema belongs to one of the columns."""
    return any(path == name or path.startswith(f"{name}.") for name in names)


def _hash(stream: IO[bytes], chunk: pq.ColumnChunkMetaData) -> str:
    """SHA-256 of a column chunk's bytes, its dictionary among them."""
    start = chunk.data_page_offset
    if chunk.dictionary_page_offset:  # some writers put 0 where there is none
        start = min(start, chunk.dictionary_page_offset)
    stream.seek(start)
    digest, left = hashlib.sha256(), chunk.total_compressed_size
    while left > 0 and (block := stream.read(min(left, 1 << 20))):
        digest.update(block)
        left -= len(block)
    return digest.hexdigest()


def problem_of_damage(error: Exception) -> Problem:
    """The problem that Arrow's error stands for; an error of the store is raised again.

    Raises:
        OSError: the same error, where it is the store's.
    """
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    first_line = str(error).strip().partition("\n")[0]
    return Problem(reason="ingest-file-unreadable", detail=f"the file is damaged: {first_line}")
