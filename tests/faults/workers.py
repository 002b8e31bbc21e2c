"""Workers that behave badly on one record, for the tests of the runner."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.engine.stage import FitInputs, Output, Progress, Row, Work
from pipeline.errors import UserError
from pipeline.settings import Settings


class BadSettings(Settings):
    """Which record is bad, what happens there, and a file that remembers that it happened."""

    bad: str = ""
    once: Path | None = None
    seconds: float = 0


_EQUAL = {"method": "bytes", "distance": 0.0, "threshold": 0.0, "rule": "record-id"}


class _Worker:
    """Copies the ids of `selection`; `_happen` is what the bad record does."""

    def __init__(self, settings: BadSettings, _models: Mapping[str, Path]) -> None:
        self.settings = settings

    def __call__(self, work: Work) -> Output:
        rows: list[Row] = []
        for record in work.each(work.read("selection").to_pylist()):
            time.sleep(self.settings.seconds)
            if record["record_id"] == self.settings.bad:
                self._happen(record["record_id"])
            rows.append({"record_id": record["record_id"], "duplicate_of": work.part, **_EQUAL})
        return Output(rows=rows)

    def _happen(self, _record: str) -> None:
        """Nothing."""


class Echo(_Worker):
    """Does nothing bad."""


class Dies(_Worker):
    """Kills its process, each time or only the first."""

    def _happen(self, _record: str) -> None:
        if self.settings.once is not None:
            if self.settings.once.exists():
                return
            self.settings.once.touch()
        os.kill(os.getpid(), signal.SIGKILL)


class Raises(_Worker):
    """Raises an error of the program."""

    def _happen(self, record: str) -> None:
        message = f"no pixels in {record}"
        raise ValueError(message)


class Hangs(_Worker):
    """Never comes back."""

    def _happen(self, _record: str) -> None:
        time.sleep(10_000)


class FailsBefore(_Worker):
    """Raises before it has a record in hand, in the part of the bad record."""

    def __call__(self, work: Work) -> Output:
        if self.settings.bad in work.read("selection").column("record_id").to_pylist():
            message = "out of cheese"
            raise RuntimeError(message)
        return super().__call__(work)


def failing_fit(_settings: Settings, _inputs: FitInputs, _folder: Path) -> Iterator[Progress]:
    """A fit that raises an error of the program after its first step."""
    yield Progress(done=1, total=2)
    message = "no pixels"
    raise ValueError(message)


class DiskFull(_Worker):
    """Finds no room on the disk."""

    def _happen(self, record: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"/corpus/{record}")


class LacksModel:
    """Cannot load what it needs."""

    def __init__(self, _settings: BadSettings, _models: Mapping[str, Path]) -> None:
        raise UserError("the model is not there", "Put it there.")
