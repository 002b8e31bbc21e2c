"""How much of the machine others used while something was measured."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTimes:
    """CPU seconds so far, of the whole machine and of this process and its children.

    Attributes:
        at: when they were read, as files are stamped.
    """

    at: float
    machine: float
    own: float


def cpu_times() -> CpuTimes:
    """The figures of now."""
    this = psutil.Process()
    own = 0.0
    for process in (this, *this.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        own += times.user + times.system + times.children_user + times.children_system
    every = psutil.cpu_times()
    return CpuTimes(at=time.time(), machine=sum(every) - every.idle - every.iowait, own=own)


def foreign_percent(before: CpuTimes, after: CpuTimes) -> float:
    """Percent of the machine's cores that others used in between; clocks tick in 10 ms."""
    foreign = (after.machine - before.machine) - (after.own - before.own)
    cores = psutil.cpu_count() or 1
    return max(0.0, 100 * foreign / cores / (after.at - before.at))
