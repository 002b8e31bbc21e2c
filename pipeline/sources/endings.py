"""What a file is by the end of its name: the one table that every source and every message uses.

Endings count in any case. A compressed file has both endings (`.tar.gz`). What is never read is
counted by its ending, so that nothing that lies in a source is passed over in silence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import PurePosixPath

PICTURES = (
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".svg",
    ".jpe", ".jfif", ".mpo", ".j2k", ".j2c", ".jpx", ".apng", ".dib", ".avifs", ".ico", ".tga",
    ".ppm", ".pgm", ".pbm", ".pnm", ".svgz",
)  # fmt: skip
"""Of several pictures in one sample of a tar, the one whose ending comes first is taken."""
SOUNDS = (
    ".wav", ".wave", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".au",
    ".snd",
)  # fmt: skip
CAPTIONS = (".txt", ".caption", ".json")
"""Where the caption of a picture may be written; the first that is there counts."""
TABLES = (".csv", ".jsonl", ".parquet", ".tsv", ".ndjson")
TARS = (
    ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tzst",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """An extra of the package that reads more pictures.

    Attributes:
        name: as in `pip install 'anymix[NAME]'`.
        module: the Python module that it brings.
        endings: of the files that it reads.
    """

    name: str
    module: str
    endings: tuple[str, ...]


EXTRAS = (
    Extra(name="heif", module="pillow_heif", endings=(".heic", ".heif", ".hif")),
    Extra(name="jxl", module="pillow_jxl", endings=(".jxl",)),
)

MORE_PICTURES = tuple(ending for extra in EXTRAS for ending in extra.endings)

_COMPRESSED = {".gz", ".bz2", ".xz", ".zst"}
_ORDINARY = re.compile(r"(\.[a-z0-9_+-]{1,12}){1,2}")
_MAX_KINDS = 100
"""Ours: a folder of `scan.0001`, `scan.0002`, … would otherwise have a million endings."""
_OTHER = "other endings"
_MADE_BY_SYSTEMS = {"thumbs.db", "desktop.ini"}


@cache
def pictures() -> tuple[str, ...]:
    """Endings of the pictures that can be read here: an extra's only where it is installed."""
    more = (extra.endings for extra in EXTRAS if find_spec(extra.module) is not None)
    return (*PICTURES, *(ending for endings in more for ending in endings))


def ending(name: str) -> str:
    """The end of a file's name in lower case, from the dot on; both where it is compressed."""
    path = PurePosixPath(name)
    last = path.suffix.lower()
    return PurePosixPath(path.stem).suffix.lower() + last if last in _COMPRESSED else last


def is_of_system(key: str) -> bool:
    """Whether a file is an operating system's or a tool's own: hidden, or in a hidden folder.

    These are the only files that are left out without being counted.
    """
    *_, name = steps = key.split("/")
    hidden = any(step.startswith(".") or step == "__MACOSX" for step in steps)
    return hidden or name.lower() in _MADE_BY_SYSTEMS


def is_twin_of_macos(key: str) -> bool:
    """Whether a file holds what macOS knows of another file, under whose name it is (`._a.jpg`)."""
    *folders, name = key.split("/")
    return name.startswith("._") or "__MACOSX" in folders


class Unread(Counter[str]):
    """How many files of a source are not read, by their ending; at most about a hundred kinds."""

    def note(self, name: str, why: str = "") -> None:
        """Count one file (or member of a tar), with a word on why it is not read."""
        self.add(f"{_kind(name)} {why}".rstrip())

    def take_back(self, name: str) -> None:
        """Uncount a file that is read after all."""
        self.subtract([_kind(name)])
        self += Counter()  # without the kinds of which none is left

    def add(self, kind: str, count: int = 1) -> None:
        """Count some files of a kind."""
        self[kind if kind in self or len(self) < _MAX_KINDS else _OTHER] += count


def _kind(name: str) -> str:
    found = ending(name)
    return found if _ORDINARY.fullmatch(found) else _OTHER if found else "without an ending"


def sentence(unread: Mapping[str, int]) -> str:
    """What is not read, the commonest first, and what would read it."""
    counts = sorted(unread.items(), key=lambda each: (-each[1], each[0]))
    listed = ", ".join(f"{count:,} {kind}" for kind, count in counts)
    num = sum(unread.values())
    remedies = [
        f"; pip install 'anymix[{extra.name}]' reads the {' and '.join(there)}"
        for extra in EXTRAS
        if (there := [each for each in extra.endings if each in unread and each not in pictures()])
    ]
    return f"{num:,} file{'s' if num > 1 else ''} not read: {listed}{''.join(remedies)}"
