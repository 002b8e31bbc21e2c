"""What a corpus has been asked to forget: remembered, so that it never comes back.

The list holds names and hashes, never what stood behind them. Ingest consults it for every record;
it is no part of a fingerprint, since forgetting one record must not redo the others.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa

from pipeline.engine.tables import read_table, write_table
from pipeline.errors import UserError

FORGOTTEN_FILE = "forgotten.parquet"
FORGOTTEN = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=False),
        pa.field("time", pa.string(), nullable=False),
    ]
)

Kind = Literal["image-id", "record", "source-prefix"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_NUM_DIGITS = {"record": 16, "image-id": 64}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Entry:
    """One thing to forget: all records with an image, a record, or a stretch of a source."""

    kind: Kind
    value: str

    def require_whole(self) -> None:
        """Check that this can mean a record: a key, or an id that is cut off, never does.

        Raises:
            UserError: when it is no id of its kind.
        """
        digits = _NUM_DIGITS.get(self.kind)
        if digits and not re.fullmatch(f"[0-9a-f]{{{digits}}}", self.value):
            raise UserError(
                f"{self.kind} {self.value!r}: an id has {digits} digits, each 0 to 9 or a to f",
                "`anymix explain CORPUS KEY` shows the ids of a record; a source-prefix takes the"
                " name SOURCE/KEY, or how it begins.",
            )

    @classmethod
    def parse(cls, line: str) -> Entry:
        """The entry that a line of a list says: `image-id X`, `record X`, `source-prefix X` or X.

        Raises:
            ValueError: when the line says nothing of the kind.
        """
        first, _, rest = line.strip().partition(" ")
        for kind in KINDS:
            if first == kind and rest.strip():
                return cls(kind=kind, value=rest.strip())
        if rest or not first or first in KINDS:
            message = f"{line.strip()!r} is none of: {', '.join(f'{k} X' for k in KINDS)}, X"
            raise ValueError(message)
        return cls(kind="record", value=first)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """The whole list.

    Attributes:
        image_ids: SHA-256 of images; every record with these bytes is forgotten.
        record_ids: ids of records.
        source_prefixes: beginnings of `source/key` or of `origin`, in order; none begins with
            another one.
    """

    image_ids: Collection[str] = field(default_factory=frozenset)
    record_ids: Collection[str] = field(default_factory=frozenset)
    source_prefixes: tuple[str, ...] = ()

    def covers(
        self,
        *,
        source: str,
        key: str,
        record_id: str,
        image_id: str | None = None,
        origin: str | None = None,
    ) -> bool:
        """Whether a record must not be in the corpus."""
        return (
            record_id in self.record_ids
            or image_id in self.image_ids
            or self._has_prefix_of(f"{source}/{key}")
            or (origin is not None and self._has_prefix_of(origin))
        )

    def _has_prefix_of(self, name: str) -> bool:
        """Only the last one that is not behind `name` can be its beginning."""
        place = bisect_right(self.source_prefixes, name)
        return place > 0 and name.startswith(self.source_prefixes[place - 1])


def read_forgotten(root: Path) -> Forgotten:
    """The list of the corpus in `root`; empty where nothing has been forgotten."""
    return gather(Entry(kind=row["kind"], value=row["value"]) for row in _rows(root))


def gather(entries: Iterable[Entry]) -> Forgotten:
    """The list that has just these entries."""
    values: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for entry in entries:
        values[entry.kind].append(entry.value)
    return Forgotten(
        image_ids=frozenset(values["image-id"]),
        record_ids=frozenset(values["record"]),
        source_prefixes=_outermost(values["source-prefix"]),
    )


def _outermost(prefixes: Iterable[str]) -> tuple[str, ...]:
    """The prefixes in order, without those that begin with another one."""
    kept: list[str] = []
    for prefix in sorted(prefixes):
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return tuple(kept)


def remember(root: Path, entries: Iterable[Entry]) -> None:
    """Add to the list of the corpus in `root`; what is there already keeps its time."""
    rows = _rows(root)
    known = {(row["kind"], row["value"]) for row in rows}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    new = [
        {"kind": entry.kind, "value": entry.value, "time": now}
        for entry in sorted(set(entries))
        if (entry.kind, entry.value) not in known
    ]
    if new:
        write_table(root / FORGOTTEN_FILE, [*rows, *new], FORGOTTEN)


def _rows(root: Path) -> list[dict[str, Any]]:
    path = root / FORGOTTEN_FILE
    return read_table(path).to_pylist() if path.exists() else []
