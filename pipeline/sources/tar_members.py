"""The samples of a WebDataset tar, found by reading only its headers; nothing is ever extracted.

A sample is a run of files with one name up to the first dot, as `webdataset` groups them.
"""

from __future__ import annotations

import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO

from pipeline.sources.endings import Unread, is_of_system
from pipeline.sources.files import Problem, plain

_BLOCK = 512
_MAX_HEADER_BYTES = 1 << 20
"""Ours: headers, long names and lists of holes of a member are a few kilobytes. A header may say
more, and must not fill the memory."""
_DAMAGES = (tarfile.TarError, ValueError, LookupError, ArithmeticError, RecursionError, EOFError)
"""What `tarfile` raises on damaged or hostile headers."""


@dataclass(kw_only=True)
class Sample:
    """A run of files of one key.

    Attributes:
        key: folder and name up to the first dot.
        start: where its first header begins.
        end: where the header after it begins.
        files: offset and size of each file's bytes, by what follows the first dot.
        fault: what is wrong with one of the files.
    """

    key: str
    start: int
    end: int = 0
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    fault: Problem | None = None


def samples(
    file: BinaryIO, start: int, end: int, unread: Unread | None = None
) -> Iterator[Sample | Problem]:
    """The samples whose headers lie from `start` to before `end`.

    A tar that breaks off or is damaged gives a Problem last. `unread` counts what is no part of a
    sample.
    """
    size = file.seek(0, 2)
    file.seek(start)
    current: Sample | None = None
    position = start
    for member in _members(file, start, end):
        position = member.end
        parts = _split(member.name)
        if member.info.isdir() or parts is None:
            if unread is not None and not member.info.isdir() and not is_of_system(member.name):
                unread.note(member.name, "outside of any sample")
            continue
        key, extension = parts
        if current is None or key != current.key or extension in current.files:
            if current is not None:
                yield current
            current = Sample(key=key, start=member.info.offset)
        current.files[extension] = (member.info.offset_data, member.info.size)
        current.end = position
        current.fault = current.fault or _fault_of(member, size)
    if current is not None:
        yield current
    if position < end or not size:
        fault = _end_fault(file, position, end)
        if fault is not None:
            yield fault


def repetitions(found: Sequence[Sample]) -> dict[int, tuple[int, Problem]]:
    """For samples of a key that comes again: the occurrence's number and what is wrong with it.

    Where the occurrences share a kind of file, the key is used twice and the first one stays; else
    the files of one sample lie apart, and no reader would put them together.
    """
    by_key: dict[str, list[int]] = defaultdict(list)
    for index, sample in enumerate(found):
        by_key[sample.key].append(index)
    faults = {}
    for key, indices in by_key.items():
        kinds = [kind for index in indices for kind in found[index].files]
        is_apart = len(set(kinds)) == len(kinds)
        for number, index in enumerate(indices, start=1):
            if len(indices) > 1 and is_apart:
                detail = f"the files of {key} are not next to each other in the tar"
                faults[index] = number, Problem(reason="ingest-not-adjacent", detail=detail)
            elif number > 1:
                detail = f"{key}: the key's occurrence number {number}; the first one stays"
                faults[index] = number, Problem(reason="ingest-duplicate-key", detail=detail)
    return faults


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """A member's headers, its name as text, and where the header after it begins."""

    info: tarfile.TarInfo
    name: str
    end: int


class _Headers:
    """A tar as `tarfile` sees it: no member's headers may be longer than the limit."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.left = _MAX_HEADER_BYTES
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.left:
            message = f"a header of more than {_MAX_HEADER_BYTES} bytes"
            raise tarfile.ReadError(message)
        self.left -= size
        return self._file.read(size)


def _members(file: BinaryIO, start: int, end: int) -> Iterator[_Member]:
    """The members up to `end`, or to the first header that cannot be read."""
    size, headers = file.seek(0, 2), _Headers(file)
    position = file.seek(start)
    try:
        tar = tarfile.TarFile(fileobj=headers)  # type: ignore[arg-type]
        while (info := tar.next()) is not None and info.offset < end:
            tar.members = []  # type: ignore[attr-defined]  # else it keeps every header
            headers.left = _MAX_HEADER_BYTES
            if tar.offset <= position:  # a negative size leads back, without end
                return
            position = tar.offset
            yield _Member(info=info, name=plain(info.name).removeprefix("./"), end=position)
            if position > size:
                return
    except _DAMAGES:
        pass  # the caller says where it ends


def _split(name: str) -> tuple[str, str] | None:
    """Key and extension of a member; None for what is no part of a sample."""
    folder, _, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    if not stem or not dot or (base.startswith("__") and base.endswith("__")):
        return None
    return (f"{folder}/{stem}" if folder or name.startswith("/") else stem), extension.lower()


def _fault_of(found: _Member, tar_size: int) -> Problem | None:
    path, member = PurePosixPath(found.name), found.info
    if path.is_absolute() or ".." in path.parts:
        detail = f"{path} leads out of the tar"
        return Problem(reason="ingest-path-outside", detail=detail)
    if member.issym() or member.islnk():
        detail = f"{path} is a link to {plain(member.linkname)}"
        return Problem(reason="ingest-tar-link", detail=detail)
    if not member.isreg() or member.issparse():
        detail = f"{path} is a device, a pipe or a sparse file"
        return Problem(reason="ingest-tar-device", detail=detail)
    if member.offset_data + member.size > tar_size:
        detail = f"{path} should have {member.size} bytes, the tar ends before"
        return Problem(reason="ingest-tar-truncated", detail=detail)
    return None


def _end_fault(file: BinaryIO, position: int, end: int) -> Problem | None:
    """What is wrong with the place where the headers end, or with what follows it."""
    file.seek(position)
    block = file.read(_BLOCK)
    if len(block) < _BLOCK:
        detail = f"it breaks off after byte {position}, without an end mark"
        return Problem(reason="ingest-tar-truncated", detail=detail)
    if any(block):
        detail = f"at byte {position} there is no header that can be read; what follows is lost"
        return Problem(reason="ingest-tar-damaged", detail=detail)
    while not any(block) and file.tell() < end:
        block = file.read(_BLOCK)
    if not any(block):
        return None
    detail = (
        f"there is more behind its end mark at byte {position}, as where tars are joined by `cat`;"
        " that is not read: make it tars of their own"
    )
    return Problem(reason="ingest-tar-damaged", detail=detail)
