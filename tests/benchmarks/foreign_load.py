"""How much of the machine others used while something was measured."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

import psutil

_LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTimes:
    """CPU seconds so far, of the whole machine and of this process and all that it has started.

    Attributes:
        at: when they were read, as files are stamped.
    """

    at: float
    machine: float
    own: float


@dataclass
class CpuMeter:
    """Reads the times, and looks at the own processes twice a second while it is entered.

    What has ended is counted as it was last seen: a raylet does not wait for its workers, so that
    the system tells no parent what they used.
    """

    _seen: dict[psutil.Process, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> CpuMeter:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def read(self) -> CpuTimes:
        """The figures of now."""
        this = psutil.Process()
        with self._lock:
            for process in (this, *this.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    self._seen[process] = times.user + times.system
            own = sum(self._seen.values())
        every = psutil.cpu_times()
        return CpuTimes(at=time.time(), machine=sum(every) - every.idle - every.iowait, own=own)

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_S):
            self.read()


def foreign_percent(before: CpuTimes, after: CpuTimes) -> float:
    """Percent of the machine's cores that others used in between; clocks tick in 10 ms."""
    foreign = (after.machine - before.machine) - (after.own - before.own)
    cores = psutil.cpu_count() or 1
    return max(0.0, 100 * foreign / cores / (after.at - before.at))
