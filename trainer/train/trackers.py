"""The lines of `metrics.jsonl` as curves in TensorBoard and Weights & Biases.

The lines are what a training is read from; a tracker shows the same figures elsewhere, each step
once, however often the training was stopped or killed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.engine.storage import commit_json, read_json
from pipeline.errors import UserError
from trainer.differences import flat
from trainer.run import read_metrics
from trainer.settings import TrainSettings

if TYPE_CHECKING:
    import wandb

EVENTS = "tensorboard"
"""Folder of the event files in a run's folder."""
WANDB = "wandb.json"
"""Where a run says which one of Weights & Biases it is, and which steps that one has."""

_PROJECT = "anymix"


class Tracker(Protocol):
    """Takes the figures of each step."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Take the figures after a step."""

    def flush(self) -> None:
        """Have what was taken outlive this process."""


class Trackers:
    """All trackers of a training."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers

    def log(self, line: Mapping[str, Any]) -> None:
        """Take a line of `metrics.jsonl`."""
        if self._trackers:
            figures = flat({name: x for name, x in line.items() if name != "step"}, "/")
            for tracker in self._trackers:
                tracker.log(line["step"], figures)

    def flush(self) -> None:
        """Have what was taken outlive this process; due before each checkpoint."""
        for tracker in self._trackers:
            tracker.flush()


def check_installed(settings: TrainSettings) -> None:
    """See that what `report_to` names is there.

    Raises:
        UserError: when it is not; it has the command that installs it.
    """
    for name in settings.report_to:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # a folder of that name is no package
            raise UserError(
                f"train.report_to names {name}, which is not installed",
                f"pip install 'anymix[{name}]', or leave it out: metrics.jsonl has all figures.",
            )


@contextmanager
def tracking(run: Path, settings: TrainSettings, *, step: int) -> Iterator[Trackers]:
    """The trackers that the settings name, open inside the block.

    Args:
        run: the run's folder, with the metrics of all steps that were done before.
        settings: of the run.
        step: where the training resumes; at 0 it begins, and the curves of another are discarded.

    Raises:
        UserError: when Weights & Biases refuses the run; an earlier one's curves are still there.
    """
    with ExitStack() as stack:
        trackers: list[Tracker] = []
        if "wandb" in settings.report_to:
            trackers.append(stack.enter_context(_weights_and_biases(run, settings, step)))
        elif step == 0:
            (run / WANDB).unlink(missing_ok=True)
        if step == 0:
            shutil.rmtree(run / EVENTS, ignore_errors=True)
        if "tensorboard" in settings.report_to:
            trackers.append(stack.enter_context(_tensorboard(run, step)))
        yield Trackers(trackers)


class _TensorBoard:
    def __init__(self, run: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Steps that a kill took back are in older files; readers drop them from here on.
        purge_step = step + 1 if step else None
        self.writer = SummaryWriter(str(run / EVENTS), purge_step=purge_step)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)

    def flush(self) -> None:
        self.writer.flush()


@contextmanager
def _tensorboard(run: Path, step: int) -> Iterator[Tracker]:
    tracker = _TensorBoard(run, step)
    try:
        yield tracker
    finally:
        tracker.writer.close()


class _WeightsAndBiases:
    def __init__(self, run: wandb.Run, num_known: int) -> None:
        """Log to a run that has the steps up to `num_known`; its history never goes back."""
        self._run = run
        self._num_known = num_known

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        if step > self._num_known:
            self._run.log(dict(figures), step=step)

    def flush(self) -> None:
        """A process of its own has taken it."""


@contextmanager
def _weights_and_biases(run: Path, settings: TrainSettings, step: int) -> Iterator[Tracker]:
    import wandb

    resumes = step > 0 and (run / WANDB).exists()
    before: dict[str, Any] = read_json(run / WANDB) if resumes else {"id": None, "steps": 0}
    try:
        opened = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=run.resolve().name,
            id=before["id"],
            resume="allow" if resumes else None,
            dir=run,
            config=settings.model_dump(mode="json"),
            allow_val_change=True,
            settings=wandb.Settings(console="off"),  # the display is no part of the log
        )
    except wandb.Error as error:
        message = f"Weights & Biases does not take the run: {error}"
        raise UserError(message, "Run `wandb login`, or set WANDB_MODE=offline.") from error
    done = [line["step"] for line in read_metrics(run)] if resumes else []
    num_known = max([before["steps"], *done])
    commit_json(run / WANDB, {"id": opened.id, "steps": num_known})
    with opened:
        yield _WeightsAndBiases(opened, num_known)
