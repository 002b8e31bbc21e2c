"""Signals at random instants of a run through Ray, on a machine that is busy.

One corpus is filled by runs that are stopped, one after the other, and the last of which is left
alone. Every stop must end with exit code 3 (0 where the run was done already) and leave no process
behind, and in the end the corpus must have the bytes of one that nobody has disturbed.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from pipeline.errors import STOPPED

STAGES = (
    "", "ingest", "fit clip", "fit vq", "measure", "deduplicate", "fit text", "shards",
    "The corpus is in",
)  # fmt: skip
"""What a run has said, by the time at which it is stopped; nothing at its start."""
_PATIENCE_S = 240


class StopError(AssertionError):
    """A stop that ended otherwise."""


@contextmanager
def busy(num_processes: int = 1) -> Iterator[None]:
    """Keep the machine busy while the block runs."""
    command = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(command) for _ in range(num_processes)]
    try:
        yield
    finally:
        for each in others:
            each.kill()
            each.wait()


def stop_often(
    command: Sequence[str], *, stages: Sequence[str], seed: int, longest_s: float
) -> list[int]:
    """Run a command once for each stage and stop it there, or a little later.

    Args:
        command: what fills the corpus.
        stages: what each run has said when its time begins to run.
        seed: chooses the signals and the instants.
        longest_s: the latest instant after that.

    Returns:
        The exit codes.

    Raises:
        StopError: naming the seed, the stage, the instant and what was said.
    """
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    return [
        _stop(command, stage, chance.uniform(0, longest_s), chance.choice(("SIGTERM", "SIGINT")))
        for stage in stages
    ]


def _stop(command: Sequence[str], stage: str, delay_s: float, name: str) -> int:
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        run = subprocess.Popen([*command], stderr=log, stdout=log)
        is_over = threading.Event()
        until = time.monotonic() + _PATIENCE_S
        while stage not in _text(log) and run.poll() is None and time.monotonic() < until:
            is_over.wait(0.05)
        is_over.wait(delay_s)
        family = _family(run)
        run.send_signal(getattr(signal, name))
        where = f"{name} {delay_s:.2f} s after {stage!r}"
        try:
            code = run.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            run.kill()
            raise StopError(f"{where}: no end\n{_text(log)}") from None
        if code not in {0, STOPPED}:
            raise StopError(f"{where}: exit code {code}\n{_text(log)}")
        if code == STOPPED and "the same command goes on from there" not in _text(log):
            raise StopError(f"{where}: nothing was said\n{_text(log)}")
        left = [each for each in psutil.wait_procs(family, timeout=10)[1] if not _is_dead(each)]
        if left:
            raise StopError(f"{where}: left behind: {left}")
        return code


def _text(log: tempfile._TemporaryFileWrapper[str]) -> str:
    return Path(f"/proc/self/fd/{log.fileno()}").read_text(encoding="utf-8")


def _family(run: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(run.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _is_dead(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
