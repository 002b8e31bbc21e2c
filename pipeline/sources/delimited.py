"""The rows of CSV and its kin, where quotes may be right, missing, or never closed.

A quoted field may run over several lines, so that only a parser knows where a row ends; and a quote
that nobody closes makes one field of all that follows. Quotes count here only where they close by
the rules; a line where they do not is a row of its own, with its quotes as they are.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from pipeline.sources.files import Problem
from pipeline.sources.known_names import caption_columns, image_column
from pipeline.text_files import with_plain_line_ends

SAID_DELIMITER = re.compile(r'"?sep=(.)"?(?:\r\n|\n|\r)', re.IGNORECASE)
"""The line before the header with which Excel is told what parts the fields."""
_SIGNS = "\t,;|"
_QUOTED = re.compile(r'"[^"]*"')
_MAX_FIELD_CHARACTERS = 1 << 21
"""Ours: a quote that does not close within 2 Mi characters closes nowhere."""
_NUM_SHOWN = 60


def delimiter_of(start: str, default: str) -> str:
    """What parts the fields of a file, by its first line; Excel's "Unicode text" has tabs in a CSV.

    Args:
        start: the beginning of the file.
        default: what the file's name says, for a header of one field.
    """
    header = _QUOTED.sub("", _first_line(start))
    found = max((default, *_SIGNS), key=header.count)
    return found if found in header else default


def is_header(start: str) -> bool:
    """Whether a text begins with names of columns, those of a picture and of a caption among them.

    Flickr8k's `captions.txt` does; prose does not.
    """
    line = _first_line(start)
    names = line.split(delimiter_of(line, ","))
    return bool(len(names) > 1 and image_column(names) and caption_columns(names))


def _first_line(start: str) -> str:
    return with_plain_line_ends(start).lstrip().partition("\n")[0]


def rows_of(
    lines: Iterator[str], delimiter: str, num_fields: int | None
) -> Iterator[tuple[list[str] | Problem, Sequence[str]]]:
    """The rows, each with the lines that it takes; an empty line is a row without fields.

    Args:
        lines: with their ends.
        delimiter: what parts the fields.
        num_fields: how many the header has; None where the first row is the header.
    """
    csv.field_size_limit(_MAX_FIELD_CHARACTERS)
    ahead = _Ahead(lines)
    for line in ahead:
        if '"' not in line:
            text, taken = _without_end(line), [line]
            row: list[str] | Problem = text.split(delimiter) if text else []
        else:
            row, taken = _with_quotes(line, ahead, delimiter, num_fields)
        yield row, taken
        if num_fields is None and isinstance(row, list):
            num_fields = len(row) or None


class _Ahead:
    """Lines of which some can be put back."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._back: deque[str] = deque()

    def __iter__(self) -> _Ahead:
        return self

    def __next__(self) -> str:
        return self._back.popleft() if self._back else next(self._lines)

    def put_back(self, lines: Sequence[str]) -> None:
        self._back.extendleft(reversed(lines))


def _with_quotes(
    line: str, ahead: _Ahead, delimiter: str, num_fields: int | None
) -> tuple[list[str] | Problem, list[str]]:
    taken = [line]
    fields = _quoted(taken, ahead, delimiter)
    if fields is not None and not _are_rows(taken, delimiter, num_fields):
        return fields, taken
    if fields is not None and delimiter != "\t":
        return _ambiguous(taken), taken
    ahead.put_back(taken[1:])
    return _without_quotes(line, delimiter, num_fields), [line]


def _quoted(taken: list[str], ahead: Iterator[str], delimiter: str) -> list[str] | None:
    """The fields of a row whose quotes close, the lines that it needs added to `taken`; else None.

    A scan ends at the next quote that does not fit, so that no line is read over and over.
    """

    def more() -> Iterator[str]:
        for line in ahead:
            taken.append(line)
            yield with_plain_line_ends(line)

    first = (with_plain_line_ends(taken[0]),)
    # Most quotes close on their line, and a chain costs as much as the parsing.
    return _parsed(first, delimiter) or _parsed(chain(first, more()), delimiter)


def _parsed(lines: Iterable[str], delimiter: str) -> list[str] | None:
    try:
        return next(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error:
        return None


def _are_rows(lines: Sequence[str], delimiter: str, num_fields: int | None) -> bool:
    """Whether lines that quotes hold together look like rows: each has the header's fields.

    In a field of prose a comma comes with a space.
    """
    if len(lines) == 1 or num_fields in (None, 1):
        return False
    return all(
        line.count(delimiter) + 1 == num_fields and f"{delimiter} " not in line for line in lines
    )


def _ambiguous(lines: Sequence[str]) -> Problem:
    shown = _without_end(lines[0])[:_NUM_SHOWN]
    detail = (
        f"{len(lines)} lines from {shown!r} on are one row by their quotes, and {len(lines)} rows "
        "without them: close the quote, or double those that are text"
    )
    return Problem(reason="ingest-row-malformed", detail=detail)


def _without_quotes(line: str, delimiter: str, num_fields: int | None) -> list[str] | Problem:
    """The fields of a line whose quotes do not close, where it has as many as the header."""
    text = _without_end(line)
    fields = text.split(delimiter)
    if num_fields in (None, len(fields)):
        return fields
    try:
        fields = next(csv.reader([text], delimiter=delimiter))
    except csv.Error:
        fields = []
    if len(fields) == num_fields:
        return fields
    detail = f"a quote in {text[:_NUM_SHOWN]!r} is not closed, or text follows where it is"
    return Problem(reason="ingest-row-malformed", detail=detail)


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")
