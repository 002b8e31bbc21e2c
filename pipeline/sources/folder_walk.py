"""The pictures below a folder, each with a cheap look at it and at its captions."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from os import stat_result
from pathlib import Path

from pipeline.sources.endings import (
    MORE_PICTURES,
    PICTURES,
    SOUNDS,
    TABLES,
    Unread,
    is_of_system,
    is_twin_of_macos,
)
from pipeline.sources.files import Problem, plain, problem_of

METADATA = tuple(f"metadata{ending}" for ending in TABLES)
"""Names of files with a row for each picture; of several in a folder, the first counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What a folder lists under a key.

    Attributes:
        look: sizes and times of the picture and of the files next to it.
        sidecars: endings of the caption file next to it and then of the JSON with notes, as their
            names write them; empty where there is none.
        problem: why it cannot be read; None where nothing is known against it.
        row: a fingerprint of its row of the metadata, and where that is; None where it has none.
    """

    look: str = ""
    sidecars: tuple[str, ...] = ()
    problem: Problem | None = None
    row: Place | None = None

    @property
    def state(self) -> list[str]:
        """What is known without opening a file; where the row is decides nothing."""
        problem = self.problem.reason if self.problem else ""
        return [self.look, *self.sidecars, problem, self.row.fingerprint if self.row else ""]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A row of a metadata file.

    Attributes:
        file: the file's key.
        place: where the row begins, as `folder_metadata.read_places` wants it.
        fingerprint: of the cells that decide the record.
    """

    file: str
    place: int
    fingerprint: str


@dataclass(slots=True, kw_only=True)
class Walk:
    """What is looked for, and what was passed over.

    Attributes:
        endings: of the pictures, or `SOUNDS`, in lower case.
        captions: endings of caption files, the first that is there counts.
        metadata: keys of the metadata files that were found.
        unread: the files that are none of these.
    """

    endings: Sequence[str]
    captions: Sequence[str]
    metadata: list[str] = field(default_factory=list)
    unread: Unread = field(default_factory=Unread)

    def files(self, root: Path) -> Iterator[tuple[str, Listed]]:
        """The pictures by their key, in any order.

        Links to folders are followed. One that leads back to a folder that it lies in, a folder
        that cannot be opened and a picture that cannot be looked at are listed with their problem.
        """
        return self._walk(root, "", (_identity(root.stat()),))

    def _walk(
        self, folder: Path, prefix: str, above: tuple[tuple[int, int], ...]
    ) -> Iterator[tuple[str, Listed]]:
        try:
            statuses = {path.name: _status(path) for path in folder.iterdir()}
        except OSError as error:
            yield prefix.removesuffix("/"), Listed(problem=problem_of(error, folder))
            return
        files: dict[str, stat_result | Problem] = {}
        for name, status in statuses.items():
            if is_twin_of_macos(prefix + name):
                continue
            if isinstance(status, Problem) or not stat.S_ISDIR(status.st_mode):
                files[name] = status
                continue
            key, identity = plain(prefix + name), _identity(status)
            if not identity[1] or identity not in above:
                yield from self._walk(folder / name, f"{key}/", (*above, identity))
            else:
                detail = f"{key} leads back to a folder above it"
                yield key, Listed(problem=Problem(reason="ingest-symlink-loop", detail=detail))
        yield from self._files_of(prefix, files)

    def _files_of(
        self, prefix: str, files: Mapping[str, stat_result | Problem]
    ) -> Iterator[tuple[str, Listed]]:
        """The pictures of one folder."""
        sidecars: dict[str, dict[str, str]] = {}
        for name in sorted(files, reverse=True):  # of `a.TXT` and `a.txt` the latter stays
            stem, suffix = _split(name)
            if suffix.lower() in self.captions:
                sidecars.setdefault(stem, {})[suffix.lower()] = suffix
        used = set(_metadata_of(files))
        self.metadata += (plain(prefix + name) for name in used)
        pictures = set()
        for name, status in files.items():
            stem, suffix = _split(name)
            if suffix.lower() in self.endings:
                # Downloaders write `a.png.txt`.
                there = {kind: suffix + own for kind, own in sidecars.get(name, {}).items()}
                there |= sidecars.get(stem, {})
                kinds = [kind for kind in self.captions if kind in there]
                kept = [*kinds[:1], *(kind for kind in kinds[1:] if kind == ".json")]
                names = tuple(there[kind] for kind in kept)
                pictures |= {stem, name}
                used |= {name, *(stem + each for each in names)}
                yield plain(prefix + name), _picture(name, status, names, files)
        for name in files.keys() - used:
            if not is_of_system(prefix + name):
                self.unread.note(name, self._why_unread(name, pictures))

    def _why_unread(self, name: str, pictures: Set[str]) -> str:
        """A word on why a file is not read, where its ending does not tell."""
        _, suffix = _split(name.lower())
        if name.lower() in METADATA:
            return "next to another metadata file"
        if suffix in self.captions:
            is_second = _split(name)[0] in pictures
            return "next to another caption file" if is_second else f"without a {self._what}"
        if suffix in SOUNDS:
            return "(a sound)"
        is_picture = suffix in PICTURES or suffix in MORE_PICTURES
        return "(a picture)" if is_picture and self._what == "sound" else ""

    @property
    def _what(self) -> str:
        return "sound" if self.endings is SOUNDS else "picture"


def look_at(path: Path) -> Listed:
    """A picture that something else than the folder lists."""
    status = _status(path)
    if isinstance(status, Problem):
        return Listed(problem=status)
    return Listed(look=_look([status]))


def _metadata_of(files: Mapping[str, object]) -> list[str]:
    by_name = {name.lower(): name for name in sorted(files, reverse=True)}
    return [by_name[name] for name in METADATA if name in by_name][:1]


def _picture(
    name: str,
    status: stat_result | Problem,
    sidecars: tuple[str, ...],
    files: Mapping[str, stat_result | Problem],
) -> Listed:
    if isinstance(status, Problem):
        return Listed(problem=status)
    if plain(name) != name:
        detail = f"{plain(name)}: the file's name is not UTF-8"
        return Listed(problem=Problem(reason="ingest-file-unreadable", detail=detail))
    stem = _split(name)[0]
    return Listed(
        look=_look([status, *(files[stem + each] for each in sidecars)]), sidecars=sidecars
    )


def _split(name: str) -> tuple[str, str]:
    """Stem and suffix, as `Path` has them."""
    stem, dot, end = name.rpartition(".")
    return (stem, dot + end) if stem and end else (name, "")


def _look(statuses: Sequence[stat_result | Problem]) -> str:
    return " ".join(
        f"{each.st_size}:{each.st_mtime_ns}" if isinstance(each, stat_result) else "-"
        for each in statuses
    )


def _status(path: Path) -> stat_result | Problem:
    try:
        return path.stat()
    except (OSError, ValueError) as error:
        return problem_of(error, path)


def _identity(status: stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
