"""The bytes of records' images, wherever they lie: in the records table, or still in the source.

With `ingest.images: reference` a large tar or Parquet corpus is not written twice. A reference is

    PATH                            a file
    PATH#offset=N&size=N            bytes of a tar, not compressed
    PATH#column=C&row=N             a row of a Parquet file; C holds bytes or {bytes, path}

and is checked against the image's SHA-256 each time, so that what was scored is what is tokenized.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.engine.fingerprint import hash_bytes
from pipeline.errors import FAILED, UserError

_ROWS_PER_BATCH = 16
"""Images in memory at once, besides those that were asked for."""
_PLACE = re.compile(r"(?P<path>.+)#(?:offset=(?P<offset>\d+)&size=(?P<size>\d+)|"
                    r"column=(?P<column>.+)&row=(?P<row>\d+))", re.DOTALL)  # fmt: skip


def tar_reference(path: str, *, offset: int, size: int) -> str:
    """Where a member's bytes lie in a tar."""
    return f"{path}#offset={offset}&size={size}"


def parquet_reference(path: str, *, column: str, row: int) -> str:
    """Where an image lies in a Parquet file; rows are counted over the whole file."""
    return f"{path}#column={column}&row={row}"


def image_bytes(rows: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """The encoded image of each row.

    Files are opened once a call, so give it many rows. Of a Parquet file each row group is read
    once, as long as one thread's calls ask for its rows in order.

    Args:
        rows: with `image_id`, `image` and `image_ref` of the records table; each has an image.

    Raises:
        UserError: when a referenced image is gone, or is not the one that was ingested.
        OSError: when the store that it lies on fails.
    """
    contents: list[bytes] = [row["image"] for row in rows]
    by_file: dict[str, list[tuple[int, re.Match[str] | None]]] = defaultdict(list)
    for index, row in enumerate(rows):
        if row["image"] is None:
            place = _PLACE.fullmatch(row["image_ref"])
            by_file[place["path"] if place else row["image_ref"]].append((index, place))
    for path, wanted in by_file.items():
        try:
            found = _read(path, [place for _, place in wanted])
        except (OSError, ValueError, LookupError) as error:
            _last_read.__dict__.clear()  # it may be in the middle of a batch
            if _is_of_store(error, path):
                raise  # it does not answer: the picture may well be there
            raise _lost(path, str(error)) from error
        for (index, _), content in zip(wanted, found, strict=True):
            if content is None or hash_bytes(content) != rows[index]["image_id"]:
                _last_read.__dict__.clear()  # a file on a store may have been put back since
                raise _lost(rows[index]["image_ref"], "it is not the image that was ingested")
            contents[index] = content
    return contents


def _is_of_store(error: Exception, path: str) -> bool:
    """Whether a store has failed; Arrow's errors on a damaged file are plain, without a number."""
    if "://" not in path or not isinstance(error, OSError) or isinstance(error, FileNotFoundError):
        return False
    return error.errno is not None or type(error) is not OSError


def _lost(place: str, why: str) -> UserError:
    return UserError(
        f"the referenced image {place} cannot be used: {why}",
        "Put the source back as it was, or run `anymix run` again to take the change in. "
        "With `ingest.images: copy` a corpus does not depend on its source.",
        exit_code=FAILED,
    )


def _open(path: str) -> BinaryIO:
    if "://" not in path:
        return Path(path).open("rb")
    # Not `fsspec.open`, which takes a `[` or a `*` in a name for a pattern.
    system, place = fsspec.core.url_to_fs(path)
    return system.open(place, "rb")  # type: ignore[no-any-return]


def _read(path: str, places: Sequence[re.Match[str] | None]) -> list[bytes | None]:
    """What lies at each place of one file."""
    contents: list[bytes | None] = [None] * len(places)
    rows = {index: place for index, place in enumerate(places) if place and place["column"]}
    if len(rows) < len(places):
        with _open(path) as file:
            for index, place in enumerate(places):
                if index not in rows:
                    file.seek(int(place["offset"]) if place else 0)
                    contents[index] = file.read(int(place["size"]) if place else -1)
    for index, place in sorted(rows.items(), key=lambda item: int(item[1]["row"])):
        contents[index] = _parquet_images(path, place["column"])[int(place["row"])]
    return contents


def _parquet_images(path: str, column: str) -> _ParquetImages:
    """The file that this thread has read last, where it is the same and has not changed."""
    status = Path(path).stat() if "://" not in path else None
    key = (path, column, status and (status.st_size, status.st_mtime_ns))
    if getattr(_last_read, "key", None) != key:
        _last_read.images = _ParquetImages(path if status else _open(path), column)
        _last_read.key = key
    images: _ParquetImages = _last_read.images
    return images


_last_read = threading.local()


class _ParquetImages:
    """The images of one column of a Parquet file, by the number of the row.

    It reads on from where it is: callers ask for a few rows at a time, and to read the whole row
    group for each of them would read it a hundred times.

    Raises:
        LookupError: when the file has no such column.
    """

    def __init__(self, file: str | BinaryIO, column: str) -> None:
        self._parquet = pq.ParquetFile(file)
        self._column = column
        if column not in self._parquet.schema_arrow.names:
            message = f"it has no column {column!r}"
            raise LookupError(message)
        metadata = self._parquet.metadata
        lengths = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        self._ends = list(accumulate(lengths))
        self._group = -1
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._first, self._batch = 0, pa.array([])

    def __getitem__(self, row: int) -> bytes | None:
        """The image of a row; None where the row has none.

        Raises:
            LookupError: when the file has no such row.
        """
        group = bisect_right(self._ends, row)
        if group == len(self._ends):
            message = f"it has no row {row}"
            raise LookupError(message)
        if group != self._group or row < self._first:
            self._batches = self._parquet.iter_batches(
                _ROWS_PER_BATCH, row_groups=[group], columns=[self._column]
            )
            self._group, self._batch = group, pa.array([])
            self._first = self._ends[group - 1] if group else 0
        while row >= self._first + len(self._batch):
            self._first += len(self._batch)
            if (batch := next(self._batches, None)) is None:
                message = f"row group {group} ends before row {row}"
                raise LookupError(message)
            self._batch = batch.column(0)
        return image_of(self._batch[row - self._first].as_py())


def image_of(value: object) -> bytes | None:
    """The bytes of an image cell: bytes, the `{bytes, path}` of `datasets`, or a list of one."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping):
        value = value.get("bytes")
    return value if isinstance(value, bytes) else None
