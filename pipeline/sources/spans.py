"""Cutting a file of rows into spans: what one part reads, found without looking at pixels."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from pipeline.engine.fingerprint import fingerprint
from pipeline.sources import lines, row_groups
from pipeline.sources.columns import refuse_twins
from pipeline.sources.files import Problem, problem_of

Row = dict[str, Any]

SUFFIXES = (*lines.SUFFIXES, ".parquet")
"""File names that hold rows."""


class Meaning(Protocol):
    """What a source's rows mean, as far as cutting them needs it.

    Attributes:
        listed: what `key` and `num_records` need; where it is empty, listing parses no row.
    """

    @property
    def listed(self) -> Sequence[str]: ...  # noqa: D102

    def columns(self, there: Sequence[str]) -> Sequence[str]:
        """What reading a row needs, of a file with these columns; the others are never touched."""

    def key(self, row: Row) -> str | None:
        """The row's own key; None where it has none, or where rows go by their number."""

    def num_records(self, row: Row) -> int:
        """How many records the row becomes, those that are refused among them; 1 or more."""


@dataclass(kw_only=True)
class Span:
    """A run of rows of one file.

    Attributes:
        first_row: number of the first row in the file, from 0.
        num_rows: how many rows it holds.
        num_records: how many records they become.
        size_bytes: how much of the file it covers.
        where: how to find it again: the byte where it starts in a file of lines.
        content: hash of its bytes.
        repeated: numbers of the rows whose key an earlier row of the file has.
    """

    first_row: int
    num_rows: int = 0
    num_records: int = 0
    size_bytes: int = 0
    where: int = 0
    content: str = ""
    repeated: list[int] = field(default_factory=list)


def is_parquet(path: Path) -> bool:
    """Whether a file holds row groups; others hold lines."""
    return path.suffix.lower() == ".parquet"


def columns_of(path: Path) -> Sequence[str]:
    """The columns of a file by its header, its footer or its first rows.

    None where it cannot be read: its rows, or its part, say why.
    """
    try:
        of = row_groups.column_names if is_parquet(path) else lines.column_names
        return of(path)
    except OSError as error:
        problem_of(error, path)  # a store that does not answer is raised
        return []


def list_spans(path: Path, rows_per_span: int, meaning: Meaning) -> list[Span] | Problem:
    """The spans of a file in order, about `rows_per_span` records each.

    Raises:
        OSError: when the file cannot be opened.
        UserError: when two columns have a name that is used.
    """
    keys = _Keys()

    def look_at(number: int, row: Row | Problem) -> int:
        """Notes the row's key and gives the number of its records."""
        if isinstance(row, Problem):
            return 1
        keys.note(number, meaning.key(row))
        return meaning.num_records(row)

    if is_parquet(path):
        found = _list_row_groups(path, rows_per_span, meaning, look_at)
    else:
        found = _list_lines(path, rows_per_span, meaning, look_at)
    if isinstance(found, Problem):
        return found
    repeated = keys.repeated()
    for span in found:
        last = span.first_row + span.num_rows
        span.repeated = [number for number in repeated if span.first_row <= number < last]
    return found


def read_span(path: Path, span: Span, meaning: Meaning) -> Iterator[tuple[int, Row | Problem]]:
    """The rows of a span, each with its number in the file."""
    if is_parquet(path):
        rows = row_groups.read_rows(path, span.first_row, span.num_rows, meaning.columns)
    else:
        rows = lines.read_rows(path, span.where, span.num_rows)
    return enumerate(rows, start=span.first_row)


def _list_lines(
    path: Path,
    rows_per_span: int,
    meaning: Meaning,
    look_at: Callable[[int, Row | Problem], int],
) -> list[Span]:
    spans: list[Span] = []
    with closing(lines.LineFile(path)) as file:
        refuse_twins(path, file.header, meaning.columns(file.header))
        span = Span(first_row=0, where=file.offset)

        def close() -> Span:
            span.size_bytes = file.offset - span.where
            span.content = fingerprint(header=file.header, bytes=file.digest.hexdigest())
            spans.append(span)
            file.digest = hashlib.sha256()
            return Span(first_row=span.first_row + span.num_rows, where=file.offset)

        for number, raw in enumerate(file):
            span.num_rows += 1
            span.num_records += look_at(number, file.parse(raw)) if meaning.listed else 1
            if span.num_records >= rows_per_span:
                span = close()
        if span.num_rows:
            close()
    return spans


def _list_row_groups(
    path: Path,
    rows_per_span: int,
    meaning: Meaning,
    look_at: Callable[[int, Row | Problem], int],
) -> list[Span] | Problem:
    """Whole row groups, several or one to a span; only a large one is divided."""
    groups = row_groups.list_groups(path, meaning.columns)
    if isinstance(groups, Problem):
        return groups
    counts: Iterator[int] = iter(())
    if meaning.listed:
        num_rows = sum(group.num_rows for group in groups)
        rows = row_groups.read_rows(path, 0, num_rows, lambda _: meaning.listed)
        counts = (look_at(number, row) for number, row in enumerate(rows))
    spans: list[Span] = []
    span, contents = Span(first_row=0), list[object]()
    for group in groups:
        own = list(islice(counts, group.num_rows)) if meaning.listed else [1] * group.num_rows
        for start, stop in _pieces(own, rows_per_span):
            span.num_rows += stop - start
            span.num_records += sum(own[start:stop])
            span.size_bytes += group.size_bytes * (stop - start) // group.num_rows
            contents.append([group.content, start, stop])
            if span.num_records >= rows_per_span:
                spans.append(_sealed(span, contents))
                span, contents = Span(first_row=span.first_row + span.num_rows), []
    if span.num_rows:
        spans.append(_sealed(span, contents))
    return spans


def _pieces(counts: Sequence[int], rows_per_span: int) -> Iterator[tuple[int, int]]:
    """A row group whole, or cut where it holds more than two spans, as (start, stop)."""
    if sum(counts) <= 2 * rows_per_span:
        if counts:
            yield 0, len(counts)
        return
    start = held = 0
    for stop, count in enumerate(counts, start=1):
        held += count
        if held >= rows_per_span or stop == len(counts):
            yield start, stop
            start, held = stop, 0


def _sealed(span: Span, contents: list[object]) -> Span:
    span.content = fingerprint(groups=contents)
    return span


class _Keys:
    """Which rows repeat a key, at eight bytes a row."""

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._numbers = array("Q")

    def note(self, number: int, key: str | None) -> None:
        """Remember the key of one row."""
        if key is not None:
            digest = hashlib.sha256(key.encode()).digest()
            self._hashes.append(int.from_bytes(digest[:8], "big"))
            self._numbers.append(number)

    def repeated(self) -> list[int]:
        """The rows whose key an earlier row has, in order."""
        import numpy as np

        hashes = np.frombuffer(self._hashes, np.uint64)
        order = np.argsort(hashes, kind="stable")
        again = order[1:][hashes[order][1:] == hashes[order][:-1]]
        return sorted(self._numbers[row] for row in again.tolist())
