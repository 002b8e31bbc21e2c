"""What a person sees while a run goes on, on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipeline.engine.runner import PartDone
from pipeline.engine.stage import Progress as FitProgress

_LINE_EVERY_S = 15.0
"""Without a terminal (a log file, a scheduler) a line now and then takes the bar's place."""

_Update = Callable[[int, int, str], None]


@dataclass(kw_only=True)
class StageProgress:
    """What a stage has done so far; each call moves its bar."""

    num_parts: int
    update: _Update
    started: float = field(default_factory=time.monotonic)
    parts_done: int = 0
    num_rows: int = 0
    num_rejects: int = 0

    def part(self, done: PartDone) -> None:
        """Count a part that has been committed."""
        self.parts_done += 1
        self.num_rows += done.num_rows
        self.num_rejects += done.num_rejects
        rate = self.num_rows / max(time.monotonic() - self.started, 1e-3)
        self.update(self.parts_done, self.num_parts, f"parts, {rate:,.0f} rows/s")

    def rows(self, done: int, total: int, figures: str) -> None:
        """Show rows instead of parts, for a stage whose parts take long."""
        self.update(done, total, figures)


class Reporter:
    """A bar for each step that has work, and a line for each that is done."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def unchanged(self, name: str) -> None:
        """Say that a step has nothing to do."""
        self._console.print(f"[dim]{name:<14} nothing has changed[/dim]")

    def corpus_step(self, name: str, num_rows: int, seconds: float) -> None:
        """Say what a step over the whole corpus gave."""
        self._console.print(f"{name:<14} {num_rows} rows in {seconds:.1f} s")

    @contextmanager
    def stage(self, name: str, *, num_parts: int, of: int) -> Iterator[StageProgress]:
        """Show the parts of a stage as they are committed."""
        with self._bar(name) as update:
            progress = StageProgress(num_parts=num_parts, update=update)
            yield progress
        seconds = time.monotonic() - progress.started
        refused = f", {progress.num_rejects} rejected" if progress.num_rejects else ""
        kept = f" ({of - num_parts} unchanged)" if num_parts < of else ""
        self._console.print(
            f"{name:<14} {progress.num_rows} rows{refused}"
            f" in {num_parts} parts{kept}, {seconds:.1f} s"
        )

    @contextmanager
    def fit(self, name: str) -> Iterator[Callable[[FitProgress], None]]:
        """Show the steps of a fit; call the result with its progress."""
        started = time.monotonic()
        figures = ""
        with self._bar(f"fit {name}") as update:

            def show(progress: FitProgress) -> None:
                nonlocal figures
                figures = "  ".join(f"{key} {x:.3g}" for key, x in progress.figures.items())
                update(progress.done, progress.total, f"steps  {figures}")

            yield show
        seconds = time.monotonic() - started
        self._console.print(f"{f'fit {name}':<14} {figures or 'done'}, {seconds:.1f} s")

    @contextmanager
    def _bar(self, name: str) -> Iterator[_Update]:
        """A bar on a terminal, or a line every few seconds elsewhere."""
        printed = time.monotonic()
        if not self._console.is_terminal:
            self._console.print(f"{name:<14} …")
        with Progress(
            TextColumn(f"{name:<14}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total} {task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        ) as bar:
            task = bar.add_task(name, total=None, figures="")

            def update(done: int, total: int, figures: str) -> None:
                nonlocal printed
                bar.update(task, completed=done, total=total, figures=figures)
                now = time.monotonic()
                if not self._console.is_terminal and now - printed > _LINE_EVERY_S:
                    printed = now
                    self._console.print(f"{name:<14} {done}/{total} {figures}")

            yield update
