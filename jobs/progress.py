"""What a person sees of a run's steps while they are done, on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console

from pipeline.engine.stage import Progress as FitProgress
from pipeline.engine.worker import Advance, PartDone
from pipeline.ledger.damage import Damage
from pipeline.progress import Display, Update


@dataclass(kw_only=True)
class StageProgress:
    """What a stage of a chain has done so far."""

    num_parts: int
    started: float = field(default_factory=time.monotonic)
    parts_done: int = 0
    num_rows: int = 0
    num_rejects: int = 0
    num_records: int = 0
    num_tokens: int = 0
    seconds: float = 0


@dataclass(kw_only=True)
class ChainProgress:
    """What the stages of a chain have done so far; each call moves a bar."""

    stages: Mapping[str, StageProgress]
    update: Update

    def part(self, done: PartDone) -> None:
        """Count a part that has been committed."""
        stage = self.stages[done.stage]
        stage.parts_done += 1
        stage.num_rows += done.num_rows
        stage.num_rejects += done.num_rejects
        stage.seconds = time.monotonic() - stage.started
        rate = stage.num_rows / max(stage.seconds, 1e-3)
        self.update(done.stage, stage.parts_done, stage.num_parts, f"parts, {rate:,.0f} rows/s")

    def advance(self, made: Advance) -> None:
        """Show what moves inside the parts of a stage whose parts take long."""
        stage = self.stages[made.stage]
        stage.num_records += made.num_records
        stage.num_tokens += made.num_tokens
        figures = f"parts, {stage.num_records:,} records, {stage.num_tokens:,} tokens written"
        self.update(made.stage, stage.parts_done, stage.num_parts, figures)


class Reporter:
    """A bar for each step that has work, and a line for each that is done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._display = Display(console)

    def unchanged(self, name: str) -> None:
        """Say that a step has nothing to do."""
        self._console.print(f"[dim]{name:<14} nothing has changed[/dim]")

    def warn(self, warning: str) -> None:
        """Say what a person should know while the run goes on."""
        self._console.print(f"warning: {warning}", soft_wrap=True, markup=False)

    def repaired(self, found: Sequence[Damage]) -> None:
        """Say which damaged files were removed, to be made again."""
        for damage in found:
            self._console.print(f"damaged        {damage.path}: {damage.what}", soft_wrap=True)
        if not found:
            self._console.print("no file is damaged")

    def unread(self, notes: Sequence[str]) -> None:
        """Say what lies in the sources and is not read."""
        for note in notes:
            self._console.print(note, soft_wrap=True, markup=False)

    def corpus_step(self, name: str, num_rows: int, seconds: float) -> None:
        """Say what a step over the whole corpus gave."""
        self._console.print(f"{name:<14} {num_rows} rows in {seconds:.1f} s")

    @contextmanager
    def chain(self, num_parts: Mapping[str, int], *, of: int) -> Iterator[ChainProgress]:
        """Show the parts of some stages as they are committed, then a line for each stage.

        Args:
            num_parts: for each stage, how many parts it has to do; 0 where nothing has changed.
            of: how many parts there are.
        """
        busy = {name: count for name, count in num_parts.items() if count}
        stages = {name: StageProgress(num_parts=count) for name, count in busy.items()}
        with self._display.bars(list(busy)) as update:
            yield ChainProgress(stages=stages, update=update)
        for name in num_parts:
            if name in stages:
                self._summary(name, stages[name], of)
            else:
                self.unchanged(name)

    def _summary(self, name: str, done: StageProgress, of: int) -> None:
        refused = f", {done.num_rejects} rejected" if done.num_rejects else ""
        kept = f" ({of - done.num_parts} unchanged)" if done.num_parts < of else ""
        self._console.print(
            f"{name:<14} {done.num_rows} rows{refused}"
            f" in {done.num_parts} parts{kept}, {done.seconds:.1f} s"
        )

    @contextmanager
    def fit(self, name: str) -> Iterator[Callable[[FitProgress], None]]:
        """Show the steps of a fit; call the result with its progress."""
        with self._display.work(f"fit {name}", "steps") as show:

            def show_progress(progress: FitProgress) -> None:
                figures = "  ".join(f"{key} {x:.3g}" for key, x in progress.figures.items())
                show(progress.done, progress.total, figures)

            yield show_progress
