"""Tries at a task, kept on the disk while they last: a record that kills its worker is found out.

Ray starts a dead worker's task again without a limit, and a dead process can tell nobody which
record it was at. So each try leaves a file until its part is committed, and from the second try on
the file also names the record in hand (the first is spared the cost: nearly all succeed). A record
that was in hand at the end of every try is put in quarantine, and the rest of its part goes on.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pipeline.engine.faults import as_user_error, may_pass
from pipeline.engine.storage import commit_json, is_local, read_json, temporary_beside
from pipeline.errors import UserError

_Done = TypeVar("_Done")

logger = logging.getLogger(__name__)

ATTEMPTS_FOLDER = "attempts"
"""In a corpus: a folder for each stage, with a file for each part that is under way."""
MAX_TRIES = 3
"""Tries after which a record, or a part whose record is not known, is given up."""
_MAX_KILLS = 10
"""Deaths without one culprit (a machine that keeps running out of memory) that end the part."""
PAUSES_S = (0.5, 2.0, 8.0)
"""Ours: before a part is tried again whose disk or store failed. A store's library tries, too."""


class PartFailedError(Exception):
    """A part that cannot be done, and no single record is to blame."""


@dataclass(kw_only=True)
class Attempts:
    """The tries at one task.

    Attributes:
        path: the file; gone when the part is committed.
        run: name of the run that tries now.
        tries: of this and earlier runs; how each ended, as far as is known: `records` in hand and
            `error`.
        quarantined: for each record that was given up, what it did.
    """

    path: Path
    run: str
    tries: list[dict[str, Any]] = field(default_factory=list)
    quarantined: dict[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, path: Path, run: str) -> Attempts:
        """What the file at `path` says; nothing where there is none.

        One that cannot be read says nothing either: a machine that lost its power may leave it
        empty, since it is not flushed.
        """
        try:
            return cls(path=path, run=run, **read_json(path))
        except (FileNotFoundError, ValueError):
            return cls(path=path, run=run)

    def begin(self) -> None:
        """Count a new try; gives up a record first, when all tries ended at it.

        Raises:
            PartFailedError: when the tries are used up and no single record is to blame.
        """
        culprit = self._culprit()
        if culprit is not None:
            self.quarantined[culprit] = self._story()
            self.tries = []
        own = self._own()
        if len(own) >= _MAX_KILLS or sum(bool(each["error"]) for each in own) >= MAX_TRIES:
            raise PartFailedError(self._story())
        who = f"process {os.getpid()} on {socket.gethostname()}"
        self.tries.append({"run": self.run, "who": who, "records": [], "error": ""})
        self._save()

    def note(self, records: tuple[str, ...]) -> None:
        """Write down what is in hand; costs nothing during the first try."""
        if len(self.tries) > 1:
            self.tries[-1]["records"] = list(records)
            self._save()

    def failed(self, records: tuple[str, ...], error: str) -> None:
        """Write down how the try ended."""
        self.tries[-1] |= {"records": list(records), "error": error}
        self._save()

    def withdraw(self) -> None:
        """Take the try back: it ended at nothing that a record could be blamed for."""
        self.tries.pop()
        self._save()

    def finish(self) -> None:
        """Forget the tries: the part is committed."""
        self.path.unlink(missing_ok=True)

    def _own(self) -> list[dict[str, Any]]:
        return [each for each in self.tries if each["run"] == self.run]

    def _culprit(self) -> str | None:
        """The record that was in hand at the end of every try that tells.

        Three tries of this run say enough. Of earlier runs six are wanted, since whoever killed a
        run took its workers along, whatever they were at.
        """
        for tries, enough in ((self._own(), MAX_TRIES), (self.tries, 2 * MAX_TRIES)):
            known = [each["records"] for each in tries if each["records"]]
            if len(tries) >= enough and len(known) >= enough - 1:
                last = known[-1]
                # One in quarantine has not been touched: something else is to blame.
                is_suspect = len(last) == 1 and last[0] not in self.quarantined
                if is_suspect and all(each == last for each in known):
                    return str(last[0])
        return None

    def _story(self) -> str:
        last = self.tries[-1]
        return f"{len(self.tries)} tries; the last: " + (
            last["error"].strip() or f"{last['who']} died without a word (killed, or out of memory)"
        )

    def _save(self) -> None:
        value = {"tries": self.tries, "quarantined": self.quarantined}
        if not is_local(self.path):
            commit_json(self.path, value)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Written beside and renamed, but not flushed: it has to outlive a process, not a machine.
        temporary = temporary_beside(self.path)
        temporary.write_text(json.dumps(value), encoding="utf-8")
        temporary.replace(self.path)


class Watch:
    """What one try has in hand, and a limit on how long it may have it.

    Native code that hangs cannot be interrupted, so a worker that has made no step for `timeout_s`
    writes down where it was and ends its process; the next try goes on as after any death.
    """

    def __init__(self, attempts: Attempts, timeout_s: float | None) -> None:
        self._attempts = attempts
        self._timeout_s = timeout_s
        self._since: float | None = None  # there is no limit before the first step
        self._stopped = threading.Event()
        self.records: tuple[str, ...] = ()

    def at(self, records: tuple[str, ...]) -> None:
        """Say which records are in hand now."""
        self.records, self._since = records, time.monotonic()
        self._attempts.note(records)

    def __enter__(self) -> Watch:
        if self._timeout_s is not None:
            threading.Thread(target=self._look, args=(self._timeout_s,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def _look(self, timeout_s: float) -> None:
        while not self._stopped.wait(min(1.0, timeout_s / 4)):
            if self._since is not None and time.monotonic() - self._since > timeout_s:
                self._attempts.failed(self.records, f"no step for {timeout_s:g} s: it hangs")
                os._exit(1)


def persevere(
    attempts: Attempts,
    timeout_s: float | None,
    do: Callable[[Mapping[str, str], Callable[[tuple[str, ...]], None]], _Done],
) -> _Done:
    """Call `do(quarantined, at)` until it succeeds or its tries are used up.

    Raises:
        PartFailedError: when no single record is to blame, as for every `UserError`.
        Exception: what the disk or the store says: that is no record's fault.
    """
    while True:
        attempts.begin()
        with Watch(attempts, timeout_s) as watch:
            try:
                return do(attempts.quarantined, watch.at)
            except UserError as error:
                # A damaged file or a lost picture; another try would find the same.
                attempts.withdraw()
                raise PartFailedError(str(error)) from error
            except Exception as error:  # the boundary of a part: it becomes a reject or an error
                if as_user_error(error) is not None:
                    attempts.withdraw()
                    raise
                attempts.failed(watch.records, traceback.format_exc(limit=-8))


def patiently(do: Callable[[], _Done]) -> _Done:
    """Call `do()` again after a pause where a disk or a store fails in a way that may pass."""
    for pause_s in PAUSES_S:
        try:
            return do()
        except Exception as error:
            if not may_pass(error):
                raise
            logger.warning("%s; trying again in %g s", error, pause_s)
        time.sleep(pause_s)
    return do()
