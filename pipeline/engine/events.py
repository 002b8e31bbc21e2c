"""`events.jsonl`: what happened in a corpus and when, one JSON object a line.

Events tell people what was done; nothing is decided by them. On an object store, which knows no
appending, a run keeps its lines in memory and puts the whole file now and then.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.engine.storage import commit_text, is_local

EVENTS_FILE = "events.jsonl"
_PUT_EVERY_S = 30.0


class EventLog:
    """The events of one run, added to those of earlier runs."""

    def __init__(self, path: Path, run: str) -> None:
        self._path = path
        self._run = run
        self._is_local = is_local(path)
        self._text = ""
        if not self._is_local and path.exists():
            self._text = path.read_text(encoding="utf-8")
        self._put = time.monotonic()

    def write(self, event: str, **what: Any) -> None:  # noqa: ANN401 - whatever JSON can say
        """Append one event with the time."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "run": self._run, "event": event, **what}) + "\n"
        if self._is_local:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(line)
            return
        self._text += line
        if time.monotonic() - self._put > _PUT_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Put what is in memory, where there is any."""
        if not self._is_local and self._text:
            commit_text(self._path, self._text)
            self._put = time.monotonic()
