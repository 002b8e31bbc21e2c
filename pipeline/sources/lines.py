"""Rows that are lines of a file: CSV, TSV, JSON lines, and the paragraphs of plain text.

One pass finds where each row ends and hashes the bytes; reading starts at such an offset. A quoted
CSV field may hold line breaks, so that only Python's `csv` knows where its row ends.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

from pipeline.sources.columns import NUM_FIRST_ROWS
from pipeline.sources.files import Problem

SUFFIXES = {".csv": ",", ".tsv": "\t", ".jsonl": "", ".ndjson": "", ".txt": ""}
"""File names that are read as lines, each with its delimiter if it has one."""

_MAX_LINE_BYTES = 1 << 26
"""Ours: what is beyond 64 MiB of a line is passed over, so that no file can fill the memory."""
_MAX_FIELD_CHARACTERS = 1 << 21
"""Ours: where a quote is never closed, `csv` gives up after 2 Mi characters and goes on below."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Row = dict[str, Any]
Raw = bytes | list[str] | Problem
"""A row as it stands in the file: a line, or the fields of a CSV row."""


class LineFile:
    """An open file of rows: where it is, and the hash of what has been passed."""

    def __init__(self, stream: IO[bytes], suffix: str) -> None:
        self._stream = stream
        self._suffix = suffix
        self.offset = 0
        self.digest = hashlib.sha256()
        self.header = self._read_header() if SUFFIXES[suffix] else []

    def seek(self, offset: int) -> None:
        """Go to where a row starts, as an earlier pass found it."""
        self._stream.seek(offset)
        self.offset = offset

    def __iter__(self) -> Iterator[Raw]:
        """The rows from here on; `offset` stands behind the row that was given last."""
        if delimiter := SUFFIXES[self._suffix]:
            return self._fields(delimiter)
        return self._paragraphs() if self._suffix == ".txt" else self._filled_lines()

    def parse(self, raw: Raw) -> Row | Problem:  # noqa: PLR0911 - one return a kind of row
        """The columns of a row; text that is no UTF-8 is decoded with `surrogateescape`."""
        if isinstance(raw, Problem):
            return raw
        if isinstance(raw, list):
            if len(raw) != len(self.header):
                detail = f"{len(raw)} fields, the header has {len(self.header)}"
                return Problem(reason="ingest-row-ragged", detail=detail)
            # CSV has no null: an empty field is one.
            return {name: field or None for name, field in zip(self.header, raw, strict=True)}
        text = raw.decode("utf-8", "surrogateescape")
        if self._suffix == ".txt":
            return {"text": text}
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            return Problem(reason="ingest-row-malformed", detail=f"no JSON: {error}")
        if not isinstance(value, dict):
            detail = f"the line holds a {type(value).__name__}, not an object"
            return Problem(reason="ingest-row-malformed", detail=detail)
        return value

    def _lines(self) -> Iterator[bytes]:
        while line := self._stream.readline(_MAX_LINE_BYTES):
            self._pass(line)
            rest = line
            while len(rest) == _MAX_LINE_BYTES and not rest.endswith(b"\n"):
                rest = self._stream.readline(_MAX_LINE_BYTES)
                self._pass(rest)
            is_first = self.offset == len(line)
            yield line.removeprefix(_BYTE_ORDER_MARK) if is_first else line

    def _pass(self, line: bytes) -> None:
        self.offset += len(line)
        self.digest.update(line)

    def _filled_lines(self) -> Iterator[bytes]:
        return (line for line in self._lines() if line.strip())

    def _paragraphs(self) -> Iterator[bytes]:
        paragraph: list[bytes] = []
        for line in self._lines():
            if line.strip():
                paragraph.append(line)
            elif paragraph:
                yield b"".join(paragraph).strip()
                paragraph = []
        if paragraph:
            yield b"".join(paragraph).strip()

    def _fields(self, delimiter: str) -> Iterator[list[str] | Problem]:
        csv.field_size_limit(_MAX_FIELD_CHARACTERS)
        lines = (line.decode("utf-8", "surrogateescape") for line in self._lines())
        reader = csv.reader(lines, delimiter=delimiter)
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Problem(reason="ingest-row-malformed", detail=f"no CSV: {error}")
            else:
                if fields:
                    yield fields

    def _read_header(self) -> list[str]:
        header = next(iter(self), [])
        return header if isinstance(header, list) else []


@contextmanager
def open_lines(path: Path) -> Iterator[LineFile]:
    """The rows of a file.

    Raises:
        OSError: when it cannot be opened.
    """
    with path.open("rb") as stream:
        yield LineFile(stream, path.suffix.lower())


def column_names(path: Path) -> list[str]:
    """The columns of a file by its header, or those of its first rows where it has none.

    Raises:
        OSError: when the file cannot be opened.
    """
    with path.open("rb") as stream:
        lines = LineFile(stream, path.suffix.lower())
        rows = map(lines.parse, islice(lines, 0 if lines.header else NUM_FIRST_ROWS))
        named = dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row)
        return lines.header or list(named)


def read_rows(path: Path, offset: int, num_rows: int | None) -> Iterator[Row | Problem]:
    """So many rows from where `LineFile` found one to start; from 0 and with None all."""
    with path.open("rb") as stream:
        lines = LineFile(stream, path.suffix.lower())
        if offset:
            lines.seek(offset)
        for raw in islice(lines, num_rows):
            yield lines.parse(raw)
