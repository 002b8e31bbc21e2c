"""Compressed files of rows, as a stream that can be read on from any place.

Blocks are taken from the start in one size, so that a damaged file gives the same bytes whether
it is listed or read from the middle.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO

import pyarrow as pa

from pipeline.sources.files import Problem, plain
from pipeline.text_files import NUM_LOOKED_AT, encoding_of

PACKINGS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
"""Endings of compressed files, with Arrow's name of the compression."""

_MARKS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "a zip archive or an Excel workbook: unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save it as CSV",
    b"\xfd7zXZ": "an xz file: unpack it",
    b"PAR1": "a Parquet file: call it .parquet",
    b"version https://git-lfs": "a Git LFS pointer file: `git lfs pull` fetches what it names",
}
"""How a compressed file begins, and what else is taken for a file of rows by its name."""
_BLOCK_BYTES = 1 << 16
_MAX_RATIO = 200
"""Ours: text shrinks to a tenth, a table that repeats itself to a hundredth, a bomb to less."""
_ALWAYS_ALLOWED_BYTES = 1 << 24


def packing_of(start: bytes, path: Path) -> str | None:
    """How a file is compressed by its first bytes, whatever its name says; None for a text.

    What is no file of rows has in place of a compression what `Unpacked` says of it.
    """
    found = next((packing for mark, packing in _MARKS.items() if start.startswith(mark)), None)
    named = PACKINGS.get(path.suffix.lower())
    if named is None or found is not None:
        return found
    first = start[:4]
    is_text = encoding_of(start).mark_size or (first.isascii() and first.decode().isprintable())
    return None if first and is_text else named


class Unpacked(io.RawIOBase):
    """What a compressed stream holds; it ends where the stream is damaged, and `damage` says how.

    Args:
        packed: the compressed file, which can be sought in.
        packing: what `packing_of` says.
    """

    def __init__(self, packed: IO[bytes], packing: str) -> None:
        size = packed.seek(0, os.SEEK_END)
        packed.seek(0)
        self._limit = _ALWAYS_ALLOWED_BYTES + _MAX_RATIO * size
        self._packing = packing
        self.damage: str | None = None
        if packing in PACKINGS.values():
            self._source = pa.CompressedInputStream(packed, packing)
        else:
            self.damage = f"it is {packing}"
        self._rest = memoryview(b"")
        self._num_unpacked = self._at = 0

    def readable(self) -> bool:  # noqa: D102
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer as far as the file goes, and say how far."""
        if not self._rest and self.damage is None:
            self._rest = memoryview(self._block())
        taken = self._rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        self._at += len(taken)
        return len(taken)

    def seekable(self) -> bool:  # noqa: D102
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place further on, by reading up to it."""
        left = offset if whence == os.SEEK_CUR else offset - self._at
        if left < 0 or whence == os.SEEK_END:
            raise io.UnsupportedOperation
        buffer = memoryview(bytearray(min(left, _BLOCK_BYTES)))
        while left and (taken := self.readinto(buffer[:left])):
            left -= taken
        return self._at

    def _block(self) -> bytes:
        try:
            block: bytes = self._source.read(_BLOCK_BYTES)
        except OSError as error:
            if error.errno is not None:  # the store's
                raise
            self.damage = f"the {self._packing} file is damaged or cut off"
            return b""
        self._num_unpacked += len(block)
        if self._num_unpacked > self._limit:
            self.damage = f"it unpacks to more than {_MAX_RATIO} times its size"
            return b""
        return block


def unpacked(content: bytes, path: Path, max_bytes: int) -> bytes | Problem:
    """The content of a file, unpacked where it is packed."""
    packing = packing_of(content[:NUM_LOOKED_AT], path)
    if packing is None:
        return content
    stream = Unpacked(io.BytesIO(content), packing)
    found = io.BufferedReader(stream).read(max_bytes + 1)
    if stream.damage or len(found) > max_bytes:
        detail = stream.damage or f"it unpacks to more than {max_bytes} bytes"
        return Problem(reason="ingest-file-unreadable", detail=f"{plain(path.name)}: {detail}")
    return found
