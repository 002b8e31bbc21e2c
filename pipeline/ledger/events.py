"""Reads `events.jsonl`: the last run from its end, or all that concerns one part."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.engine.events import EVENTS_FILE

_BLOCK_BYTES = 1 << 18
_MAX_BYTES = 1 << 23
"""Ours: 8 MiB hold some 40,000 parts; rates need no more, and what is done is seen by the files."""

Event = dict[str, Any]


def last_run(root: Path) -> list[Event]:
    """The events of the last run, as far as the last 8 MiB hold it, oldest first.

    Read from the end, so that a corpus with a long history answers as fast as a new one.
    """
    path = root / EVENTS_FILE
    if not path.exists():
        return []
    tail = b""
    with path.open("rb") as stream:
        position = stream.seek(0, 2)
        while position and len(tail) < _MAX_BYTES and b'"run-started"' not in tail:
            start = max(0, position - _BLOCK_BYTES)
            stream.seek(start)
            tail = stream.read(position - start) + tail
            position = start
    lines = tail.split(b"\n")
    events = [event for line in lines[1 if position else 0 :] if (event := _parse(line))]
    starts = [n for n, event in enumerate(events) if kind_of(event) == "run-started"]
    return events[starts[-1] :] if starts else events


def of_part(root: Path, part: str) -> Iterator[Event]:
    """Every event that names the part, oldest first."""
    path = root / EVENTS_FILE
    if not path.exists():
        return
    with path.open("rb") as stream:
        for line in stream:
            if part.encode() in line:
                event = _parse(line)
                if event and event.get("part") == part:
                    yield event


def kind_of(event: Event) -> str:
    """What happened; older lines do not say it, and one that names a part means that it is done."""
    return str(event.get("event") or ("part-done" if "part" in event else "stage-done"))


def _parse(line: bytes) -> Event | None:
    """The event of a line; None for one that a crash cut short."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
