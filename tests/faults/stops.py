"""Signals at random instants of a run through Ray on a busy machine, and within each of its steps.

One corpus is filled by runs that are stopped, one after the other, and the last of which is left
alone. Every stop must end with exit code 3 (0 where the run was done already) and leave no process
behind, and in the end the corpus must have the bytes of one that nobody has disturbed.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from pipeline.engine.events import EVENTS_FILE
from pipeline.engine.stage import FitSpec, StageSpec, Step
from pipeline.engine.storage import read_json_lines
from pipeline.errors import STOPPED

STAGES = (
    "", "ingest", "fit clip", "fit vq", "measure", "deduplicate", "fit text", "shards",
    "The corpus is in",
)  # fmt: skip
"""What a run has said, by the time at which it is stopped; nothing at its start."""
STEPS = (
    "ingest", "synthesis", "ask", "synthesize", "clip", "vq", "measure", "captions", "score",
    "refuse", "tokenize", "deduplicate", "cuts", "select", "text", "shards",
)  # fmt: skip
"""The steps of the tiny recipe."""
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
    codes = []
    for stage in stages:
        delay_s, name = chance.uniform(0, longest_s), chance.choice(("SIGTERM", "SIGINT"))
        where = f"{name} {delay_s:.2f} s after {stage!r}"
        codes.append(_stop(command, lambda said: stage in said, [name], where, delay_s=delay_s))  # noqa: B023 - called before the next
    return codes


def stop_within(command: Sequence[str], root: Path, step: Step, signals: Sequence[str]) -> None:
    """Run a command and stop it while a step is at work.

    Args:
        command: what fills the corpus.
        root: the corpus, which has no events yet.
        step: a stage is stopped when its first part is done, another step when it has begun.
        signals: names of what is sent, one right after the other.

    Raises:
        StopError: saying what happened instead.
    """
    awaited = "part-done" if isinstance(step, StageSpec) else "stage-started"

    def is_due(_: str) -> bool:
        events = read_json_lines(root / EVENTS_FILE)
        return any((each["event"], each.get("stage")) == (awaited, step.name) for each in events)

    where = f"{' and '.join(signals)} within {step.name}"
    code = _stop(command, is_due, signals, where)
    if code != STOPPED:
        raise StopError(f"{where}: exit code {code}")


def without_steps(filled: Path, root: Path, flow: Sequence[Step]) -> None:
    """Copy a filled corpus but for its events and for what some steps have made."""
    shutil.copytree(filled, root)
    (root / EVENTS_FILE).unlink()
    for step in flow:
        if isinstance(step, FitSpec):
            shutil.rmtree(root / "models" / step.name)
            continue
        for folder in (step.writes, f"rejects-{step.name}"):
            shutil.rmtree(root / "tables" / folder, ignore_errors=True)
    shutil.rmtree(root / "shards")


def _stop(
    command: Sequence[str],
    is_due: Callable[[str], bool],
    signals: Sequence[str],
    where: str,
    *,
    delay_s: float = 0,
) -> int:
    """The exit code of a command that is stopped; `is_due` is told what it has said so far."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        run = subprocess.Popen([*command], stderr=log, stdout=log)
        is_over = threading.Event()
        until = time.monotonic() + _PATIENCE_S
        while not is_due(_text(log)) and run.poll() is None and time.monotonic() < until:
            is_over.wait(0.02)
        is_over.wait(delay_s)
        family = _family(run)
        for name in signals:
            run.send_signal(getattr(signal, name))
            is_over.wait(0.05)  # two that come at once are one
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
