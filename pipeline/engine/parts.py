"""A part: a slice of a source, the unit of work, of commit and of retry."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from pipeline.engine.fingerprint import fingerprint, unit_interval
from pipeline.engine.tables import read_table

PARTS_FILE = "parts.parquet"
PARTS = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("slice", pa.string(), nullable=False),
        pa.field("num_records", pa.int64(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("look", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A slice of one source.

    Attributes:
        name: the source's name and a hash of what decides the records: the same content always
            has the same name.
        source: the source's name in the recipe.
        slice: JSON that tells the source what to read, with the hash of what it will find there.
        num_records: how many records the slice holds.
        size_bytes: how many bytes of the source it covers; 0 where the source makes its records.
        look: a cheap fingerprint (names, sizes, times) that spares reading an untouched slice; it
            decides nothing else and is no part of the name.
    """

    name: str
    source: str
    slice: dict[str, Any]
    num_records: int
    size_bytes: int = 0
    look: str = ""

    @classmethod
    def of(
        cls,
        source: str,
        slice_: dict[str, Any],
        *,
        num_records: int,
        size_bytes: int = 0,
        look: str = "",
    ) -> Part:
        """The part that `slice_` of `source` is; its name follows from both."""
        return cls(
            name=f"{source}-{fingerprint(source=source, slice=slice_)}",
            source=source,
            slice=slice_,
            num_records=num_records,
            size_bytes=size_bytes,
            look=look,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecord:
    """One record as a source gives it, before anything has looked at the image's bytes.

    Attributes:
        key: its name inside the source.
        caption: its text; bytes where the source does not know the encoding, so that ingest can
            say what is wrong with them.
        image: the encoded image, or None.
        licence: SPDX name, or as the source words it.
        attribution: whom to name.
        origin: a URL or a path.
        more_captions: further texts, by the column or language that they are from.
        image_ref: where the image's bytes lie, so that they need not be copied; None where they
            are made or fetched.
        signals: what a downloader recorded beside the image (`X-Robots-Tag` and the like).
        document: the interleaved document that the record is a piece of.
        position: its place in that document.
        sound: the bytes of a sound's file, or None.
    """

    key: str
    caption: str | bytes
    image: bytes | None
    licence: str
    attribution: str
    origin: str
    more_captions: Mapping[str, str | bytes] = field(default_factory=dict)
    image_ref: str | None = None
    signals: Mapping[str, str] = field(default_factory=dict)
    document: str | None = None
    position: int | None = None
    sound: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableRecord:
    """A record that its source lists and cannot give, with the reason."""

    key: str
    reason: str
    detail: str


class Source(Protocol):
    """Where records come from. `parts` must be cheap; `read` may be slow and runs on a worker."""

    def parts(self, rows_per_part: int, known: Mapping[str, Part]) -> Iterator[Part]:
        """The slices of the source, about `rows_per_part` records each, in a stable order.

        Args:
            rows_per_part: how many records a slice should hold, about.
            known: the parts of the last run by their `look`; a slice that still looks the same
                may be taken from there without reading it.
        """

    def read(self, part: Part) -> Iterator[SourceRecord | UnreadableRecord]:
        """The records of one slice, in a stable order; one that cannot be read is never skipped."""


@runtime_checkable
class ListsFiles(Protocol):
    """A source that looks for its files itself.

    Attributes:
        unread: how many files of each kind lie there and are not read; known when `parts` has been
            read to its end.
    """

    unread: Mapping[str, int]


def cut(keys: Sequence[str], rows_per_part: int) -> Iterator[slice]:
    """Cut a sorted list of keys into runs of about `rows_per_part`, at places that the keys choose.

    A run ends after a key whose hash falls in the lowest 1/rows_per_part, so that adding or
    removing a key moves only the run that holds it (content-defined chunking; Muthitacharoen et
    al., A Low-bandwidth Network File System, SOSP 2001, section 3.1). Runs are at most four times
    that long.
    """
    start = 0
    for index, key in enumerate(keys, start=1):
        full = index - start >= 4 * rows_per_part
        if full or unit_interval("cut", key) * rows_per_part < 1 or index == len(keys):
            yield slice(start, index)
            start = index


def looks_of_parts(look: str, count: int) -> list[str]:
    """What the `count` parts of a file are remembered by; the last one says that it is.

    Args:
        look: a fingerprint of the file's name, size and time, and of what decides how it is cut.
        count: how many parts the file is cut into.
    """
    return [f"{look}-{index}{'-last' if index == count - 1 else ''}" for index in range(count)]


def remembered_parts(look: str, known: Mapping[str, Part]) -> list[Part]:
    """All parts of a file that looks as it did; none where one of them is not known."""
    parts: list[Part] = []
    while (last := known.get(f"{look}-{len(parts)}-last")) is None:
        part = known.get(f"{look}-{len(parts)}")
        if part is None:
            return []
        parts.append(part)
    return [*parts, last]


def record_id(source: str, key: str) -> str:
    """The id of a record: stable for as long as its source's name and its key are."""
    return fingerprint(source=source, key=key)


def read_parts(root: Path) -> list[Part]:
    """The parts of the last run that began on the corpus in `root`; none where there was none."""
    path = root / PARTS_FILE
    if not path.exists():
        return []
    rows = read_table(path).to_pylist()
    return [Part(**{**row, "slice": json.loads(row["slice"])}) for row in rows]
