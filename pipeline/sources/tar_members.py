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

_BLOCK = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a sample cannot be used: a reject's reason code and detail."""

    reason: str
    detail: str


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
    fault: Fault | None = None


def samples(file: BinaryIO, start: int, end: int) -> Iterator[Sample | Fault]:
    """The samples whose headers lie from `start` to before `end`.

    A tar that breaks off or is damaged gives a Fault last.
    """
    size = file.seek(0, 2)
    file.seek(start)
    current: Sample | None = None
    position = start
    try:
        with tarfile.TarFile(fileobj=file) as tar:
            while (member := tar.next()) is not None and member.offset < end:
                tar.members = []  # type: ignore[attr-defined]  # else it keeps every header
                position = tar.offset
                parts = _split(member)
                if parts is None:
                    continue
                key, extension = parts
                if current is None or key != current.key or extension in current.files:
                    if current is not None:
                        yield current
                    current = Sample(key=key, start=member.offset)
                current.files[extension] = (member.offset_data, member.size)
                current.end = position
                current.fault = current.fault or _fault_of(member, size)
    except tarfile.TarError:
        pass  # what follows says where and why it ends
    if current is not None:
        yield current
    if position < end:
        file.seek(position)
        fault = _end_fault(file.read(_BLOCK), position)
        if fault is not None:
            yield fault


def repetitions(found: Sequence[Sample]) -> dict[int, tuple[int, Fault]]:
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
                detail = f"the files of {key} do not stand together in the tar"
                faults[index] = number, Fault(reason="ingest-not-adjacent", detail=detail)
            elif number > 1:
                detail = f"{key}: the key's occurrence number {number}; the first one stays"
                faults[index] = number, Fault(reason="ingest-duplicate-key", detail=detail)
    return faults


def _split(member: tarfile.TarInfo) -> tuple[str, str] | None:
    """Key and extension of a member; None for what is no part of a sample."""
    name = member.name.encode("utf-8", "backslashreplace").decode().removeprefix("./")
    folder, _, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    if member.isdir() or not stem or not dot or (base.startswith("__") and base.endswith("__")):
        return None
    return (f"{folder}/{stem}" if folder or name.startswith("/") else stem), extension.lower()


def _fault_of(member: tarfile.TarInfo, tar_size: int) -> Fault | None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        detail = f"{path} leads out of the tar"
        return Fault(reason="ingest-path-outside", detail=detail)
    if member.issym() or member.islnk():
        detail = f"{path} is a link to {member.linkname}"
        return Fault(reason="ingest-tar-link", detail=detail)
    if not member.isreg() or member.issparse():
        detail = f"{path} is a device, a pipe or a sparse file"
        return Fault(reason="ingest-tar-device", detail=detail)
    if member.offset_data + member.size > tar_size:
        detail = f"{path} should have {member.size} bytes, the tar ends before"
        return Fault(reason="ingest-tar-truncated", detail=detail)
    return None


def _end_fault(block: bytes, position: int) -> Fault | None:
    """What is wrong with the place where the headers end."""
    if block == bytes(_BLOCK):
        return None
    if len(block) < _BLOCK:
        detail = f"it breaks off after byte {position}, without an end mark"
        return Fault(reason="ingest-tar-truncated", detail=detail)
    detail = f"there is no header at byte {position}; what follows cannot be read"
    return Fault(reason="ingest-tar-damaged", detail=detail)
