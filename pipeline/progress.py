"""What a person sees while something takes long: bars on a terminal, now and then a line elsewhere.

Work that lies deep inside says how far it is by `working` or `counting`, as a module says things by
`logging`; who owns the terminal decides by `shown_on` where that is shown. Else nothing is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

LINE_EVERY_S = 15.0
"""Without a terminal (a log file, a scheduler) a line now and then takes the bars' place."""

Update = Callable[[str, int, int, str], None]
"""Takes the name of a bar, how much is done, of how much, and what is shown behind that."""
Show = Callable[[int, int, str], None]
"""Takes how much is done, of how much, and figures worth showing; those may be empty."""


class Display:
    """Shows all that is at work at a time, one bar below the other."""

    def __init__(self, console: Console) -> None:
        """Show nothing yet.

        Args:
            console: takes what is shown.
        """
        self._console = console
        self._live: Progress | None = None

    @contextmanager
    def work(self, name: str, unit: str) -> Iterator[Show]:
        """A bar for one piece of work, and a line behind it with its last figures and its time."""
        started = time.monotonic()
        last = ""
        with self.bars([name]) as update:

            def show(done: int, total: int, figures: str) -> None:
                nonlocal last
                last = figures
                update(name, done, total, f"{unit}  {figures}")

            yield show
        seconds = time.monotonic() - started
        self._console.print(f"{name:<14} {last or 'done'}, {seconds:.1f} s", soft_wrap=True)

    @contextmanager
    def bars(self, names: Sequence[str]) -> Iterator[Update]:
        """A bar for each name; without a terminal, a line that they have begun."""
        if names and not self._console.is_terminal:
            self._console.print(f"{', '.join(names):<14} …")
        with self.count(names) as update:
            yield update

    @contextmanager
    def count(self, names: Sequence[str]) -> Iterator[Update]:
        """A bar for each name; without a terminal nothing is said before they take long."""
        printed = time.monotonic()
        with self._bars() as live:
            tasks = {name: live.add_task(name, total=None, line="") for name in names}

            def update(name: str, done: int, total: int, figures: str) -> None:
                nonlocal printed
                line = f"{done}/{total} {figures}"
                live.update(tasks[name], completed=done, total=total, line=line)
                now = time.monotonic()
                if not self._console.is_terminal and now - printed > LINE_EVERY_S:
                    printed = now
                    self._console.print(f"{name:<14} {line}", soft_wrap=True)

            try:
                yield update
            finally:
                for task in tasks.values():
                    live.remove_task(task)

    @contextmanager
    def _bars(self) -> Iterator[Progress]:
        """The bars that are there already, or new ones."""
        if self._live is not None:
            yield self._live
            return
        with Progress(
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=24, table_column=Column(min_width=24)),
            TextColumn("{task.fields[line]}", table_column=Column()),  # the one that may wrap
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        ) as live:
            self._live = live
            try:
                yield live
            finally:
                self._live = None


_SHOWN: ContextVar[Display | None] = ContextVar("shown", default=None)


@contextmanager
def shown_on(console: Console) -> Iterator[None]:
    """Have a console show what is at work inside the block."""
    before = _SHOWN.set(Display(console))
    try:
        yield
    finally:
        _SHOWN.reset(before)


@contextmanager
def working(name: str, unit: str = "steps") -> Iterator[Show]:
    """Show a piece of work of its own, with a line for what it gave; it may never be called.

    Args:
        name: at most 14 letters.
        unit: what is counted.
    """
    display = _SHOWN.get()
    if display is None:
        yield _show_nothing
        return
    with display.work(name, unit) as show:
        yield show


@contextmanager
def counting(name: str) -> Iterator[Show]:
    """Show how far a part of some work is, which may be over in a moment.

    Args:
        name: at most 14 letters.
    """
    display = _SHOWN.get()
    if display is None:
        yield _show_nothing
        return
    with display.count([name]) as update:
        yield partial(update, name)


def _show_nothing(_done: int, _total: int, _figures: str) -> None:
    """There is nobody to see it."""
