"""Ctrl-C and SIGTERM as a question that a loop asks between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def catching_signals() -> Iterator[threading.Event]:
    """Yield an event that is set by the first Ctrl-C or SIGTERM; a second one acts as usual.

    Outside the main thread Python lets nobody catch signals, and the event stays as it is.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def catch(_number: int, _frame: object) -> None:
        event.set()
        restore()

    for number in _SIGNALS:
        signal.signal(number, catch)
    try:
        yield event
    finally:
        restore()
