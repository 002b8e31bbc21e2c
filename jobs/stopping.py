"""How a command ends before its time, at any instant: Ctrl-C, SIGTERM and `--stop-after`.

The first signal raises `Stopped` in the main thread, so that the command gives back what it has
taken: the lease, Ray, the terminal. It is a `KeyboardInterrupt`, the one exception that native code
hands on; even so, libraries turn it into errors of their own, and Python drops what is raised in a
destructor. So the exception only hurries: what counts is that a signal came, and a thread ends the
process where it has not ended in time. A second signal ends it at once. No way of these loses
anything: a file is committed whole or not at all, as for a kill.

Python's own teardown is left out. Threads of DuckDB, Arrow, Ray and torch still run then, and now
and then one of them aborts the process, with another exit code.
"""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

import psutil

from pipeline.errors import FAILED, STOPPED

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
_GRACE_S = 30.0
"""Ours: for a clean stop. Ray's shutdown takes up to 10 s on a machine that is busy."""
_MESSAGE = b"Stopped. What is committed stays; the same command goes on from there.\n"
_SHOW_CURSOR = b"\x1b[?25h"


class Stopped(KeyboardInterrupt):
    """A signal, or the end of `--stop-after`."""


class _Process:
    """What this process has heard; there is one, as there is one set of signal handlers."""

    is_asked = False
    code: int | None = None
    """Its exit code, once that is settled."""
    family: list[psutil.Process] = []  # noqa: RUF012 - of the one process
    """Its children and theirs when it was asked to stop: what loses its parent keeps running."""


def is_asked() -> bool:
    """Whether a signal has asked this process to stop."""
    return _Process.is_asked


def finish(do: Callable[[], int]) -> NoReturn:
    """Do the work of this process, which signals may stop, and leave with its exit code."""
    _listen()
    try:
        _Process.code = do()  # set here: from now on a signal has nothing to stop
    except BaseException:  # noqa: BLE001 - the outermost boundary
        if not _Process.is_asked:
            traceback.print_exc()
        _Process.code = STOPPED if _Process.is_asked else FAILED
    atexit._run_exitfuncs()
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: closed before
        with suppress(OSError, ValueError):  # a pipe that nobody reads, or that is closed
            stream.flush()
    _leave()


@contextmanager
def listening() -> Iterator[None]:
    """Have signals raise `Stopped` inside the block, in a process that goes on behind it."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    _listen()
    try:
        yield
    finally:
        _Process.is_asked = False
        for number, handler in before.items():
            signal.signal(number, handler)


def _listen() -> None:
    for number in _SIGNALS:
        signal.signal(number, _hear)


def _hear(_number: int, _frame: FrameType | None) -> None:
    if _Process.is_asked or _Process.code is not None:
        _leave()
    _Process.is_asked = True
    # Not `threading`: its locks may be held by what the signal has interrupted.
    _thread.start_new_thread(_end_in_time, ())
    raise Stopped


def _end_in_time() -> None:
    with suppress(psutil.Error):
        _Process.family = psutil.Process().children(recursive=True)
    time.sleep(_GRACE_S)
    if _Process.is_asked:
        _leave()


def _leave() -> NoReturn:
    """End this process now, and what it has started; says so where it was stopped."""
    code = STOPPED if _Process.code is None else _Process.code
    if _Process.is_asked and code == STOPPED:
        with suppress(OSError):
            os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + _MESSAGE)
    with suppress(psutil.Error):
        _Process.family = [*_Process.family, *psutil.Process().children(recursive=True)]
    for each in _Process.family:
        with suppress(psutil.Error):
            each.kill()
    os._exit(code)
