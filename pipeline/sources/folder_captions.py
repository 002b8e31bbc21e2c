"""Captions of a folder's pictures: `.txt` or `.json` beside them, or one metadata file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engine.fingerprint import hash_bytes
from pipeline.sources import lines, row_groups
from pipeline.sources.captions import Captions, captions_of
from pipeline.sources.files import Problem, as_text, place_below, plain, problem_of, read_file
from pipeline.sources.folder_walk import CAPTIONS

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"
_FIRST = ("caption", "text")
"""Columns that are the caption where the recipe names none."""
_MAX_CAPTION_BYTES = 1 << 24
"""Ours: a caption file of more than 16 MiB is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """The caption file beside a picture: its suffix and its bytes, or why it cannot be read."""

    suffix: str
    content: bytes | Problem

    @property
    def fingerprint(self) -> tuple[str, str]:
        """What decides the captions."""
        if isinstance(self.content, Problem):
            return self.suffix, self.content.reason
        return self.suffix, hash_bytes(self.content)


def read_beside(image: Path) -> Beside:
    """The caption file of a picture, `.txt` before `.json`."""
    for suffix in CAPTIONS:
        content = read_file(image.with_suffix(suffix), _MAX_CAPTION_BYTES)
        if not isinstance(content, Problem) or content.reason != "ingest-image-missing":
            return Beside(suffix=suffix, content=content)
    name = plain(image.stem)
    detail = f"there is no {name}.txt or {name}.json beside the picture, and no metadata"
    return Beside(suffix="", content=Problem(reason="ingest-no-caption", detail=detail))


def of_beside(beside: Beside, columns: Sequence[str] | None) -> Captions | Problem:
    """The captions that a file beside a picture holds."""
    if isinstance(beside.content, Problem):
        reason = beside.content.reason.replace("-image-", "-caption-")
        return Problem(reason=reason, detail=beside.content.detail)
    text = beside.content.removeprefix(b"\xef\xbb\xbf")
    if beside.suffix == ".txt":
        return Captions(caption=as_text(text.strip()), more={})
    try:
        value = json.loads(text.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        return Problem(reason="ingest-caption-malformed", detail=f"no JSON: {error}")
    if not isinstance(value, dict):
        return captions_of({"caption": value}, ["caption"])
    # Other keys beside `caption` are a downloader's notes; without it, each is a language.
    first = [name for name in _FIRST if name in value][:1]
    texts = [name for name, each in value.items() if isinstance(each, str | list)]
    return captions_of(value, columns or first or texts)


def read_metadata(
    root: Path, columns: Sequence[str] | None
) -> Iterator[tuple[str, dict[str, Any] | Problem]]:
    """For each row of the folder's metadata file, the picture's key and the caption columns.

    A row that names no picture is a problem under the metadata file's own name and its number.
    """
    name = next((name for name in METADATA if (root / name).exists()), None)
    if name is None:
        return
    seen: set[str] = set()
    for number, row in enumerate(_rows(root / name)):
        by_number = f"{name}#{number}"
        if isinstance(row, Problem):
            yield by_number, row
            continue
        file_name = row.get(FILE_NAME)
        if not isinstance(file_name, str) or not file_name:
            detail = f"{FILE_NAME} is {file_name!r}"
            yield by_number, Problem(reason="ingest-no-key", detail=detail)
            continue
        place = place_below(root, file_name)
        if isinstance(place, Problem):
            yield by_number, place
            continue
        key = plain(place.relative_to(root).as_posix())
        if key in seen:
            detail = f"{key} has a row already"
            yield by_number, Problem(reason="ingest-duplicate-key", detail=detail)
            continue
        seen.add(key)
        yield key, {each: row.get(each) for each in _columns_of(row, columns)}


def _rows(path: Path) -> Iterator[Mapping[str, Any] | Problem]:
    try:
        is_parquet = path.suffix == ".parquet"
        yield from row_groups.read_all(path) if is_parquet else lines.read_rows(path, 0, None)
    except OSError as error:
        yield problem_of(error, path)


def _columns_of(row: Mapping[str, Any], columns: Sequence[str] | None) -> list[str]:
    """The columns of a row that are its captions, the caption first."""
    if columns is not None:
        return list(columns)
    texts = [name for name, value in row.items() if name != FILE_NAME and _is_text(value)]
    return sorted(texts, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))


def _is_text(value: object) -> bool:
    """Whether a cell says something; a number in a CSV is a text too, but without letters."""
    if isinstance(value, list):
        return bool(value) and all(_is_text(each) for each in value)
    return isinstance(value, str) and any(sign.isalpha() for sign in value)
