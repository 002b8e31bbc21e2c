"""A source that is files of rows: finds the files, cuts them into parts and reads them again.

What a row means is the business of `table`, `text` and `interleaved`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pydantic import Field, field_validator

from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.parts import (
    Part,
    SourceRecord,
    UnreadableRecord,
    looks_of_parts,
    remembered_parts,
)
from pipeline.engine.storage import is_local
from pipeline.errors import UserError
from pipeline.settings import RecipePath, Settings
from pipeline.sources.columns import check_columns
from pipeline.sources.endings import ending, is_of_system
from pipeline.sources.files import Problem, as_text, plain, problem_of
from pipeline.sources.known_names import (
    Provenance,
    provenance_columns,
    provenance_of,
    text_of,
)
from pipeline.sources.lines import format_of
from pipeline.sources.spans import (
    SUFFIXES,
    Meaning,
    Row,
    Span,
    columns_of,
    list_spans,
    read_span,
)
from pipeline.sources.unpacking import PACKINGS

_WILDCARDS = "*?["


class RowFileSettings(Settings):
    """What all sources of rows have in common."""

    path: RecipePath
    """One file, or many by a glob (`data/**/*.parquet`); absolute or relative to the recipe."""
    key_column: str | None = None
    """The column that names a row within its file; null takes the row's number."""
    licence: str = "unknown"
    """SPDX name of the licence, for rows that name none."""
    licence_column: str | None = None
    """The column that names the row's licence; null takes a known name (`docs/sources.md`)."""
    attribution: str = ""
    """Whom to name, for rows that name nobody."""
    attribution_column: str | None = None
    """The column that says whom to name; null takes a known name."""
    origin_column: str | None = None
    """The column with the URL that the row is from; null takes a known name, and the file and the
    row where it has none."""

    @field_validator("path")
    @classmethod
    def _is_there(cls, path: Path) -> Path:
        folder, pattern = split_glob(path)
        if pattern is None and not path.is_file():
            message = f"there is no file {path}"
            if path.is_dir():
                message = f"{path} is a folder: name its files, such as {path}/*.parquet"
            raise ValueError(message)
        if not folder.is_dir():
            message = f"there is no folder {folder}"
            raise ValueError(message)
        if format_of(path) not in SUFFIXES:
            endings = f"{', '.join(SUFFIXES)}, and not in one of these with {' or '.join(PACKINGS)}"
            message = f"{path.name} does not end in one of {endings}"
            raise ValueError(message)
        return path

    def columns(self) -> list[str]:
        """The columns of every kind of row that the recipe names."""
        named = (
            self.key_column, self.licence_column, self.attribution_column, self.origin_column,
        )  # fmt: skip
        return [name for name in named if name is not None]

    def columns_among(self, there: Sequence[str]) -> list[str]:
        """The same, and those that say licence, attribution and origin by their names."""
        return [*self.columns(), *provenance_columns(there)]


class PictureSettings(RowFileSettings):
    """What sources of rows with pictures have in common."""

    image_folder: RecipePath | None = None
    """Where the images' paths start, and what they may not leave; null is the file's folder."""
    max_image_bytes: int = Field(default=50_000_000, ge=1)
    """A larger image is rejected undecoded, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a row is, and what its records are called."""

    file: Path
    key: str


class RowMeaning(Meaning, Protocol):
    """What a source's rows mean.

    Attributes:
        needed: the columns that one file at least must have; of several in an entry one is enough.
    """

    @property
    def needed(self) -> Sequence[Sequence[str]]: ...  # noqa: D102

    def records(self, row: Row, place: Place) -> Iterator[SourceRecord | UnreadableRecord]:
        """As many records as `num_records` says, in the row's order."""


class RowFiles:
    """Files of rows as a source; a part is a span of one file.

    Record keys are `FILE#KEY`, so that keys need to be unique only within their file, and
    adding a file never makes a record of another one a duplicate.
    """

    def __init__(self, name: str, settings: RowFileSettings, meaning: RowMeaning) -> None:
        self._name = name
        self._settings = settings
        self._meaning = meaning
        self._folder, self._pattern = split_glob(settings.path)
        self._former = settings.model_dump(mode="json", exclude={"path"})
        self._decides = self._former | self._places()
        if self._former.get("caption_columns", ...) is None:
            self._former |= {"caption_columns": ["caption"]}  # the default of earlier versions

    def parts(self, rows_per_part: int, known: Mapping[str, Part]) -> Iterator[Part]:
        """The spans of each file; a file with the size and time of the last run is not opened."""
        is_checked = False
        for file in self._files():
            name = plain(file.relative_to(self._folder).as_posix())
            try:
                status = file.stat()
                status_ = [status.st_size, status.st_mtime_ns]
                decides = {"status": status_, "rows_per_part": rows_per_part}
                look = fingerprint(file=name, settings=self._decides, **decides)
                former = fingerprint(file=plain(str(file)), settings=self._former, **decides)
                parts = remembered_parts(look, known)
                if not parts and not is_checked:
                    self._check_columns()
                    is_checked = True
                yield from parts or self._parts_of(
                    file, look, rows_per_part, remembered_parts(former, known)
                )
            except OSError as error:
                # Without a look: a changed permission does not show in the size and the time.
                yield self._unreadable(file, problem_of(error, file), "")

    def read(self, part: Part) -> Iterator[SourceRecord | UnreadableRecord]:
        """The records of one span."""
        name = part.slice["file"]
        if "problem" in part.slice:
            yield UnreadableRecord(key=plain(name), **part.slice["problem"])
            return
        file = self._folder / name
        span = Span(**{name: part.slice[name] for name in _SPAN})
        repeated = set(span.repeated)
        for number, row in read_span(file, span, self._meaning):
            # A row that cannot have its own key is named by its number, which no key looks like.
            by_number = f"{plain(name)}:{number}"
            if isinstance(row, Problem):
                yield UnreadableRecord(key=by_number, reason=row.reason, detail=row.detail)
                continue
            own = self._meaning.key(row)
            if own is not None:
                key = f"{plain(name)}#{plain(own)}"
            elif self._settings.key_column is None:
                key = f"{plain(name)}#{number}"
            if own is None and self._settings.key_column is not None:
                problem = _no_key(row, self._settings.key_column)
            elif number in repeated:
                problem = Problem(reason="ingest-duplicate-key", detail=f"{key} is there already")
            else:
                yield from self._meaning.records(row, Place(file=file, key=key))
                continue
            for place in range(self._meaning.num_records(row)):
                yield UnreadableRecord(
                    key=f"{by_number}:{place}", reason=problem.reason, detail=problem.detail
                )

    def _places(self) -> dict[str, str]:
        """Where the images are, as seen from the files: both may move together."""
        folder = getattr(self._settings, "image_folder", None)
        if folder is None or not (is_local(folder) and is_local(self._folder)):
            return {}
        return {"image_folder": os.path.relpath(str(folder), str(self._folder))}

    def _files(self) -> Sequence[Path]:
        if self._pattern is None:
            return [self._settings.path]
        files = sorted(matches(self._folder, self._pattern))
        if not files:
            raise UserError(f"no file matches {self._settings.path}")
        return files

    def _check_columns(self) -> None:
        files = self._files()
        check_columns(
            self._name, self._meaning.needed, map(columns_of, files), where=str(self._settings.path)
        )

    def _parts_of(
        self, file: Path, look: str, rows_per_part: int, former: Sequence[Part]
    ) -> list[Part]:
        """The parts of a file.

        Args:
            file: the file.
            look: what it is remembered by.
            rows_per_part: how many records a part has, about.
            former: its parts by an earlier version, which named them by the absolute path, too.
                They keep their names where they are cut in the same way.
        """
        if plain(file.name) != file.name:
            detail = "the file's name is not UTF-8"
            spans: list[Span] | Problem = Problem(reason="ingest-file-unreadable", detail=detail)
        else:
            spans = list_spans(file, rows_per_part, self._meaning)
        if isinstance(spans, Problem):
            return [self._unreadable(file, spans, looks_of_parts(look, 1)[0])]
        slices = [{name: getattr(span, name) for name in _SPAN} for span in spans]
        looks = looks_of_parts(look, len(spans))
        if slices == [{name: part.slice.get(name) for name in _SPAN} for part in former]:
            return [replace(part, look=own) for part, own in zip(former, looks, strict=True)]
        return [
            Part.of(
                self._name,
                {
                    "file": plain(file.relative_to(self._folder).as_posix()),
                    **slice_,
                    "content": fingerprint(rows=span.content, settings=self._decides),
                },
                num_records=span.num_records,
                size_bytes=span.size_bytes,
                look=own,
            )
            for span, slice_, own in zip(spans, slices, looks, strict=True)
        ]

    def _unreadable(self, file: Path, problem: Problem, look: str) -> Part:
        slice_ = {
            "file": plain(file.relative_to(self._folder).as_posix()),
            "problem": {"reason": problem.reason, "detail": problem.detail},
        }
        return Part.of(self._name, slice_, num_records=1, look=look)


_SPAN = ("first_row", "num_rows", "where", "repeated")
"""What reading needs of a `Span`."""


def split_glob(path: Path) -> tuple[Path, str | None]:
    """The folder that a glob starts in, and its pattern; for one file its folder and None.

    What is there by the name `data[1]` is no glob.
    """
    for parent in reversed([path, *path.parents]):
        if any(sign in parent.name for sign in _WILDCARDS) and not parent.exists():
            return parent.parent, path.relative_to(parent.parent).as_posix()
    return path.parent, None


def matches(folder: Path, pattern: str) -> Iterator[Path]:
    """What a glob finds; its ending counts in any case, and what is hidden only where it says so.

    Jupyter keeps former versions in `.ipynb_checkpoints`, macOS `._a.csv` for each `a.csv`.
    """
    last = ending(pattern)
    letters = (f"[{sign}{sign.upper()}]" if sign.isalpha() else sign for sign in last)
    found = folder.glob(pattern[: len(pattern) - len(last)] + "".join(letters))
    if any(step.startswith(".") for step in pattern.split("/")):
        return found
    return (path for path in found if not is_of_system(path.relative_to(folder).as_posix()))


def own_key(row: Row, column: str | None) -> str | None:
    """The row's own key as text; None where there is none, or where it is no text or number."""
    value = row.get(column) if column is not None else None
    if isinstance(value, bool) or not isinstance(value, str | bytes | int):
        return None
    text = as_text(value) if isinstance(value, str | bytes) else str(value)
    return plain(text if isinstance(text, str) else text.decode("utf-8", "surrogateescape"))


def provenance(row: Row, settings: RowFileSettings, key: str) -> Provenance:
    """Licence, attribution and origin of a row, or what the settings say where it has none."""
    defaults = Provenance(licence=settings.licence, attribution=settings.attribution, origin=key)
    said = provenance_of(row, **defaults)
    if settings.licence_column is not None:
        said["licence"] = text_of(row, settings.licence_column, defaults["licence"])
    if settings.attribution_column is not None:
        said["attribution"] = text_of(row, settings.attribution_column, defaults["attribution"])
    if settings.origin_column is not None:
        said["origin"] = text_of(row, settings.origin_column, defaults["origin"])
    return said


def _no_key(row: Row, column: str) -> Problem:
    value = row.get(column)
    if value is None:
        return Problem(reason="ingest-no-key", detail=f"{column} is null")
    detail = f"{column} is {type(value).__name__}, not text or a whole number"
    return Problem(reason="ingest-wrong-type", detail=detail)
