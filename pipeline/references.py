"""The bytes of records' images, wherever they lie: in the records table, or still in the source.

With `ingest.images: reference` a large tar or Parquet corpus is not written twice. A reference is

    PATH                            a file
    PATH#offset=N&size=N            bytes of a tar, not compressed
    PATH#column=C&row=N             a row of a Parquet file; C holds bytes or {bytes, path}

and is checked against the image's SHA-256 each time, so that what was scored is what is tokenized.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pyarrow.parquet as pq

from pipeline.engine.fingerprint import hash_bytes
from pipeline.errors import FAILED, UserError

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

    Files are opened once a call and Parquet row groups read once, so give it many rows.

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
            with _open(path) as file:
                found = _read(file, [place for _, place in wanted])
        except (OSError, ValueError, LookupError) as error:
            if _is_of_store(error, path):
                raise  # it does not answer: the picture may well be there
            raise _lost(path, str(error)) from error
        for (index, _), content in zip(wanted, found, strict=True):
            if content is None or hash_bytes(content) != rows[index]["image_id"]:
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


def _read(file: BinaryIO, places: Sequence[re.Match[str] | None]) -> list[bytes | None]:
    """What lies at each place of one file."""
    contents: list[bytes | None] = [None] * len(places)
    by_column: dict[str, dict[int, int]] = defaultdict(dict)
    for index, place in enumerate(places):
        if place is None:
            file.seek(0)
            contents[index] = file.read()
        elif place["column"] is None:
            file.seek(int(place["offset"]))
            contents[index] = file.read(int(place["size"]))
        else:
            by_column[place["column"]][index] = int(place["row"])
    for column, wanted in by_column.items():
        values = parquet_images(file, column, sorted(set(wanted.values())))
        for index, row in wanted.items():
            contents[index] = values[row]
    return contents


def parquet_images(file: BinaryIO, column: str, rows: Sequence[int]) -> dict[int, bytes | None]:
    """The images of some rows of a Parquet file, each row group read once.

    Raises:
        LookupError: when the file has no such column or row.
    """
    parquet = pq.ParquetFile(file)
    found: dict[int, bytes | None] = {}
    start = 0
    for group in range(parquet.num_row_groups):
        end = start + parquet.metadata.row_group(group).num_rows
        here = [row for row in rows if start <= row < end]
        if here:
            values = parquet.read_row_group(group, columns=[column]).column(column)
            found |= {row: image_of(values[row - start].as_py()) for row in here}
        start = end
    if len(found) < len(rows):
        message = f"it has {start} rows"
        raise LookupError(message)
    return found


def image_of(value: object) -> bytes | None:
    """The bytes of an image column's value: bytes, or the `{bytes, path}` of `datasets`."""
    if isinstance(value, Mapping):
        value = value.get("bytes")
    return value if isinstance(value, bytes) else None
