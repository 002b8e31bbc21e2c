"""The pictures below a folder, each with a cheap look at it and at its captions."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from os import stat_result
from pathlib import Path
from typing import Any

from pipeline.engine.fingerprint import fingerprint
from pipeline.sources.files import Problem, plain, problem_of

PICTURES = {
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".svg",
}  # fmt: skip
SOUNDS = {".wav"}
CAPTIONS = (".txt", ".json")
"""Where a caption may stand beside a picture; the first that is there counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What a folder lists under a key.

    Attributes:
        look: sizes and times of the picture and of the captions beside it.
        problem: why it cannot be read; None where nothing is known against it.
        metadata: the caption columns of its row of the metadata; None where it has none.
    """

    look: str = ""
    problem: Problem | None = None
    metadata: Mapping[str, Any] | None = None

    @property
    def fingerprint(self) -> str:
        """What is known without opening a file."""
        # JSON's own escapes stand for what is no UTF-8.
        row = json.dumps(self.metadata, default=str)
        return fingerprint(look=self.look, problem=self.problem and self.problem.reason, row=row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A run of keys, both ends in it; without an end, all from `first` on."""

    first: str = ""
    last: str | None = None

    def holds(self, key: str) -> bool:
        """Whether the key is one of them."""
        return self.first <= key and (self.last is None or key <= self.last)

    def may_lie_below(self, key: str) -> bool:
        """Whether keys of the folder `key` can be among them."""
        # They lie between `key/` and `key0`: the zero is the character after the slash.
        return f"{key}0" > self.first and (self.last is None or f"{key}/" <= self.last)


def walk(root: Path, wanted: Range, suffixes: Set[str]) -> Iterator[tuple[str, Listed]]:
    """The keys of the files in a range that end so (`PICTURES` or `SOUNDS`), in any order.

    Links to folders are followed. One that leads back to a folder that it lies in, a folder that
    cannot be opened and a picture that cannot be looked at are listed with their problem.
    """
    return _walk(root, "", (_identity(root.stat()),), wanted, suffixes)


def look_at(path: Path) -> Listed:
    """A picture that something else than the folder lists."""
    status = _status(path)
    if isinstance(status, Problem):
        return Listed(problem=status)
    return Listed(look=_look("", status, {}))


def _walk(
    folder: Path,
    prefix: str,
    above: tuple[tuple[int, int], ...],
    wanted: Range,
    suffixes: Set[str],
) -> Iterator[tuple[str, Listed]]:
    statuses: dict[str, stat_result | Problem] = {}
    try:
        for path in folder.iterdir():
            key = plain(prefix + path.name)
            if wanted.holds(key) or wanted.may_lie_below(key):
                statuses[path.name] = _status(path)
    except OSError as error:
        key = prefix.removesuffix("/")
        if wanted.holds(key):
            yield key, Listed(problem=problem_of(error, folder))
        return
    for name, status in statuses.items():
        key = plain(prefix + name)
        if not isinstance(status, Problem) and stat.S_ISDIR(status.st_mode):
            identity = _identity(status)
            if not identity[1] or identity not in above:
                yield from _walk(folder / name, f"{key}/", (*above, identity), wanted, suffixes)
            elif wanted.holds(key):
                detail = f"{key} leads back to a folder above it"
                yield key, Listed(problem=Problem(reason="ingest-symlink-loop", detail=detail))
        elif Path(name).suffix.lower() in suffixes and wanted.holds(key):
            yield key, _picture(name, status, statuses)


def _picture(
    name: str, status: stat_result | Problem, statuses: Mapping[str, stat_result | Problem]
) -> Listed:
    if isinstance(status, Problem):
        return Listed(problem=status)
    if plain(name) != name:
        detail = f"{plain(name)}: the file's name is not UTF-8"
        return Listed(problem=Problem(reason="ingest-file-unreadable", detail=detail))
    return Listed(look=_look(name, status, statuses))


def _look(name: str, status: stat_result, statuses: Mapping[str, stat_result | Problem]) -> str:
    stem = name.removesuffix(Path(name).suffix)
    return " ".join(
        f"{each.st_size}:{each.st_mtime_ns}" if isinstance(each, stat_result) else "-"
        for each in (status, *(statuses.get(stem + end) for end in CAPTIONS))
    )


def _status(path: Path) -> stat_result | Problem:
    try:
        return path.stat()
    except (OSError, ValueError) as error:
        return problem_of(error, path)


def _identity(status: stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
