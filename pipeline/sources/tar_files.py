"""Finding and opening tars: whether one is compressed, its first bytes say, not its name."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from pipeline.engine.storage import is_local, on_store
from pipeline.sources.endings import TARS, Unread, ending, is_of_system, is_twin_of_macos
from pipeline.sources.files import Problem
from pipeline.sources.img2dataset import table_of

_OPENERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_Packed = gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile
_UNKNOWN = {b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip", b"7z\xbc\xaf": "7z", b"Rar!": "rar"}
_BLOCK_BYTES = 1 << 20
_MAX_RATIO = 200
_MIN_LIMIT_BYTES = 1 << 30
"""Ours: pictures hardly get smaller, so that a tar that grows more than 200 times and beyond 1 GiB
is a bomb."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTar:
    """A tar that can be read at any offset.

    Attributes:
        file: its bytes, without the compression.
        size: how many bytes it has, as far as they can be read.
        is_compressed: whether offsets in `file` mean nothing in the file on the disk.
        fault: why it cannot be read to its end; None where it can.
    """

    file: BinaryIO
    size: int
    is_compressed: bool
    fault: Problem | None = None


def find_tars(path: Path) -> tuple[dict[str, Path], Unread]:
    """Every tar by its name below the folder, in order, and what else lies there.

    A folder that cannot be listed is given as if it were a tar: opening it says why.
    """
    unread = Unread()
    if path.is_file():
        return ({path.name: path} if ending(path.name) in TARS else {}), unread
    found, tables = [], set()
    for name, is_file in _below(path):
        if is_twin_of_macos(name):
            continue
        if ending(name) in TARS or not is_file:
            found.append(name)
        elif ending(name) == ".parquet":
            tables.add(name)
        elif not is_of_system(name):
            unread.note(name)
    for name in tables - {table_of(PurePosixPath(tar)).as_posix() for tar in found}:
        unread.note(name)
    return {name: path / name for name in sorted(found, key=lambda name: name.split("/"))}, unread


def _below(folder: Path) -> Iterator[tuple[str, bool]]:
    """Files below a folder, and folders that are named like a tar or cannot be listed."""
    if is_local(folder):
        yield from _below_local(str(folder), "", ())
        return
    store, root = on_store(folder)
    yield from ((name.removeprefix(root).lstrip("/"), True) for name in store.find(root))


def _below_local(
    folder: str, prefix: str, above: tuple[os.stat_result, ...]
) -> Iterator[tuple[str, bool]]:
    status = os.stat(folder)  # noqa: PTH116 - as fast as it can be
    if any(os.path.samestat(status, each) for each in above):
        return  # a link back: all that it leads to is found without it
    try:
        entries = list(os.scandir(folder))
    except OSError:
        yield prefix.removesuffix("/"), False
        return
    for entry in entries:
        name = prefix + entry.name
        if not os.path.isdir(entry.path):  # noqa: PTH112 - false for a link to itself
            yield name, True
            continue
        if ending(name) in TARS:
            yield name, False
        yield from _below_local(entry.path, f"{name}/", (*above, status))


def has_tars(path: Path) -> bool:
    """Whether there is a tar at all; looks no further than to the first."""
    if not path.is_dir():
        return path.is_file() and ending(path.name) in TARS
    names = (name for name, _ in _below(path))
    return any(ending(name) in TARS for name in names)


@contextmanager
def open_tar(path: Path, start: int = 0, end: int | None = None) -> Iterator[OpenTar]:
    """Open a tar; of a compressed one, the bytes from `start` to `end` are unpacked first.

    They go to a temporary file without a name, at the offsets that they have in the tar.

    Raises:
        OSError: when it cannot be opened.
    """
    with path.open("rb") as raw:
        first = raw.read(512)
        raw.seek(0)
        size = path.stat().st_size
        # The first bytes of a tar are a file's name, which may look like anything.
        mark = b"" if first[257:262] == b"ustar" else first
        opener = next((each for begin, each in _OPENERS.items() if mark.startswith(begin)), None)
        if opener is None:
            kind = next((kind for begin, kind in _UNKNOWN.items() if mark.startswith(begin)), None)
            detail = f"it is a {kind} archive: unpack it, or make it a .tar or .tar.gz"
            fault = Problem(reason="ingest-tar-unsupported", detail=detail) if kind else None
            yield OpenTar(file=raw, size=size, is_compressed=False, fault=fault)
            return
        with opener(raw) as stream, tempfile.TemporaryFile() as copy:
            limit = max(_MIN_LIMIT_BYTES, _MAX_RATIO * size)
            fault = _unpack(stream, cast("BinaryIO", copy), start, limit if end is None else end)
            size = copy.seek(0, 2)
            if end is None and size >= limit:
                detail = f"{path.stat().st_size} bytes unpack to {limit} and more"
                fault = Problem(reason="ingest-tar-too-large", detail=detail)
            yield OpenTar(file=cast("BinaryIO", copy), size=size, is_compressed=True, fault=fault)


def _unpack(stream: _Packed, copy: BinaryIO, start: int, end: int) -> Problem | None:
    """Copy the bytes from `start` to `end`; what is wrong with the compression, if anything is."""
    copy.seek(start)
    try:
        stream.seek(start)
        # `read1`: where the data break off, `read` would give nothing of its last block.
        while copy.tell() < end and (block := stream.read1(min(_BLOCK_BYTES, end - copy.tell()))):
            copy.write(block)
    except EOFError:
        detail = f"the compressed data break off after {copy.tell()} bytes of the tar"
        return Problem(reason="ingest-tar-truncated", detail=detail)
    except (OSError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk or the store has failed, not the data
        detail = f"the compressed data are damaged after {copy.tell()} bytes of the tar: {error}"
        return Problem(reason="ingest-tar-damaged", detail=detail)
    return None
