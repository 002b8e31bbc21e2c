"""Rows of a text file: CSV, TSV, JSON, JSON lines, and the paragraphs of plain text.

One pass finds where each row ends and hashes the bytes; reading starts at such an offset.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.sources.columns import NUM_FIRST_ROWS
from pipeline.sources.delimited import SAID_DELIMITER, delimiter_of, is_header, rows_of
from pipeline.sources.files import Problem
from pipeline.sources.json_values import are_values, parse_json, values_of
from pipeline.sources.unpacking import PACKINGS, Unpacked, packing_of
from pipeline.text_files import KEEP, NUM_LOOKED_AT, encoding_of, with_plain_line_ends

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".txt")
"""File names that are read as text; each may be compressed (`PACKINGS`)."""

_MAX_LINE_CHARACTERS = 1 << 26
"""Ours: a longer line is cut into several, so that no file can fill the memory."""
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""What parts fields where the header shows nothing else."""

Row = dict[str, Any]
Raw = str | list[str] | Problem
"""A row as the file has it: a text, or the fields of a CSV row."""


def format_of(path: Path) -> str:
    """What a file holds by its ending (`.csv`), whether it is compressed (`.csv.gz`) or not."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in PACKINGS else suffix


class LineFile:
    """An open file of rows: where it is, and the hash of what has been passed.

    Raises:
        OSError: when it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._format = format_of(path)
        self.header: list[str] = []
        self._open(0)
        self.digest = hashlib.sha256()
        if self._format in _DELIMITERS:
            header = next(iter(self), [])
            self.header = _names(header) if isinstance(header, list) else []

    def close(self) -> None:
        """Close the file."""
        self._text.close()
        self._stream.close()

    def seek(self, offset: int) -> None:
        """Go to where a row starts, as an earlier pass found it."""
        self.close()
        self._open(offset)

    def __iter__(self) -> Iterator[Raw]:
        """The rows from here on; `offset` is behind the row that was given last."""
        for raw, taken in self._pieces:
            encoded = "".join(taken).encode(self._codec, KEEP)
            self.offset += len(encoded)
            self.digest.update(encoded)
            if raw:
                yield raw
        if self._damage:
            detail = f"{self._damage}; what follows is not read"
            yield Problem(reason="ingest-file-unreadable", detail=detail)

    def parse(self, raw: Raw) -> Row | Problem:
        """The columns of a row; text that is not UTF-8 is decoded with `surrogateescape`."""
        if isinstance(raw, Problem):
            return raw
        if isinstance(raw, str):
            return {"text": raw} if self._format == ".txt" else parse_json(raw)
        if len(raw) != len(self.header):
            detail = f"{len(raw)} fields, the header has {len(self.header)}"
            return Problem(reason="ingest-row-ragged", detail=detail)
        if raw[-1].strip() == self.header[-1] and len(raw) > 1 and _names(raw) == self.header:
            detail = "the header once more, as where files are joined"
            return Problem(reason="ingest-row-malformed", detail=detail)
        # CSV has no null: an empty field is one.
        return {name: field or None for name, field in zip(self.header, raw, strict=True)}

    @property
    def _damage(self) -> str | None:
        return self._raw.damage if isinstance(self._raw, Unpacked) else None

    def _open(self, offset: int) -> None:
        self._stream = self._path.open("rb")
        packing = packing_of(self._stream.read(NUM_LOOKED_AT), self._path)
        self._stream.seek(0)
        self._raw: Any = Unpacked(self._stream, packing) if packing else self._stream
        buffer = io.BufferedReader(self._raw)
        start = buffer.peek(NUM_LOOKED_AT)
        encoding = encoding_of(start)
        self._codec = encoding.codec
        text = start[encoding.mark_size :].decode(self._codec, KEEP)
        if self._format == ".txt" and is_header(text):
            self._format = ".csv"
        said = SAID_DELIMITER.match(text) if self._format in _DELIMITERS else None
        num_said = len(said[0].encode(self._codec)) if said else 0
        self.offset = offset or encoding.mark_size + num_said
        buffer.seek(self.offset)
        self._text = io.TextIOWrapper(buffer, self._codec, KEEP, newline="")
        self._pieces: Iterator[tuple[Raw, Sequence[str]]]
        if self._format in _DELIMITERS:
            delimiter = said[1] if said else delimiter_of(text, _DELIMITERS[self._format])
            self._pieces = rows_of(self._lines(), delimiter, len(self.header) or None)
        elif self._format == ".txt":
            self._pieces = _paragraphs(self._lines())
        elif are_values(text, self._format):
            at_start = self.offset == encoding.mark_size
            is_array = text.lstrip().startswith("[")
            self._pieces = values_of(self._text.read, is_array=is_array, at_start=at_start)
        else:
            self._pieces = ((line.strip(), [line]) for line in self._lines())

    def _lines(self) -> Iterator[str]:
        """The lines with their ends; half a line at the end of a damaged file is left out."""
        while line := self._text.readline(_MAX_LINE_CHARACTERS):
            if line.endswith(("\n", "\r")) or not self._damage:
                yield line


def _names(fields: Sequence[str]) -> list[str]:
    """The names of columns; a byte order mark of a joined file is no part of them."""
    return [field.strip("\ufeff \t") for field in fields]


def _paragraphs(lines: Iterator[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """The paragraphs, which blank lines part; of one without end its beginning."""
    held, size = list[str](), 0
    for line in lines:
        if not line.strip():
            yield "".join(held).strip(), [line]
            held, size = [], 0
            continue
        size += len(line)
        if size <= _MAX_LINE_CHARACTERS:
            held.append(with_plain_line_ends(line))
        yield "", [line]
    yield "".join(held).strip(), []


def column_names(path: Path) -> list[str]:
    """The columns of a file by its header, or those of its first rows where it has none.

    Raises:
        OSError: when the file cannot be opened.
    """
    with closing(LineFile(path)) as lines:
        rows = map(lines.parse, islice(lines, 0 if lines.header else NUM_FIRST_ROWS))
        named = dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row)
        return lines.header or list(named)


def read_rows(path: Path, offset: int, num_rows: int | None) -> Iterator[Row | Problem]:
    """So many rows from where `LineFile` found one to start; from 0 and with None all."""
    with closing(LineFile(path)) as lines:
        if offset:
            lines.seek(offset)
        for raw in islice(lines, num_rows):
            yield lines.parse(raw)
