"""Trains the any-to-any model on a corpus's shards and fills the run's folder.

The same settings and shards give the same weights on the same machine, whether the run was
interrupted and resumed or not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.storage import commit_json, commit_text
from pipeline.errors import STOPPED, UserError
from pipeline.progress import working
from tokenizer_cache.manifest import Manifest
from trainer.differences import differences, flat
from trainer.evaluate.consistency import check_all, check_model, read_compared
from trainer.run import METRICS, prepare_run, read_metrics, run_with
from trainer.settings import TrainSettings
from trainer.train.checkpoint import (
    discard_checkpoints,
    newest_checkpoint,
    read_average,
    read_checkpoint,
    read_state,
    remove_unfinished,
    save_checkpoint,
)
from trainer.train.initial import Initial, find_initial
from trainer.train.interruption import catching_signals
from trainer.train.metrics import describe_look, describe_step
from trainer.train.optimizer import decay_step
from trainer.train.trackers import Trackers, check_installed, tracking
from trainer.train.trainer import Trainer

VERSION = 5
"""Raised when the code changes what a run gives."""

INITIAL = "initial.json"
"""Where a run says whose weights it began with."""

_SHARDS, _VOCABULARY = "the shards", "the vocabulary"
_INITIAL = "the weights that it begins with (--init)"

_PATIENCE = 3
"""Looks at held-out rows without a better loss, after which the progress line says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What `train` would do with a run's folder, found out without touching it.

    Attributes:
        decided: what decides the run, by name.
        checkpoint: where it resumes; None where it begins.
        is_done: whether its last step is behind it.
        is_outdated: whether it is done, and the corpus has got other shards since.
        initial: the weights that it begins with, or began with; None where they are drawn.
    """

    decided: Mapping[str, Any]
    initial: Initial | None = None
    checkpoint: Path | None = None
    is_done: bool = False
    is_outdated: bool = False


def find_start(
    settings: TrainSettings,
    manifest: Manifest,
    run: Path,
    *,
    fresh: bool = False,
    init: Path | None = None,
) -> Start:
    """How training would start: at the beginning, from the newest checkpoint, or not at all.

    Args:
        settings: of the run.
        manifest: of the shards.
        run: the run's folder.
        fresh: begin again, whatever the folder holds.
        init: folder of the run whose weights are the first ones; drawn from the seed without it.

    Raises:
        UserError: when the run was trained with other settings or shards, or when the weights to
            begin with are of another model or vocabulary; it names what differs. Also when what
            `report_to` names is not installed, and when an alignment has no weights to begin with.
    """
    check_installed(settings)
    if settings.alignment is not None and init is None:
        raise UserError(
            "train.alignment aligns the weights of another run, and none is named",
            "Give --init RUN, or leave train.alignment out.",
        )
    initial = find_initial(init, settings, manifest.vocabulary) if init is not None else None
    decided = what_decides(settings, manifest)
    if initial is not None:
        decided[_INITIAL] = initial.fingerprint
    folder = None if fresh else newest_checkpoint(run)
    if folder is None:
        return Start(decided=decided, initial=initial)
    state = read_state(folder)
    differing = differences(state["decided"], decided)
    is_done = state["step"] == settings.steps
    if differing and not (is_done and set(differing) <= {_SHARDS, _VOCABULARY}):
        said = "; ".join(differing.values())
        raise UserError(
            f"{run} holds another training, at step {state['step']}: {said}",
            "Put that back to resume, give another --out, or discard that training with --fresh.",
        )
    return Start(
        decided=decided,
        initial=initial,
        checkpoint=folder,
        is_done=is_done,
        is_outdated=bool(differing),
    )


def train(
    settings: TrainSettings,
    manifest: Manifest,
    start: Start,
    *,
    models: Mapping[str, Path],
    run: Path,
    pictures: Mapping[str, Image.Image] | None = None,
) -> None:
    """Train a model and fill the run's folder.

    Ctrl-C and SIGTERM stop it after the current step, with a checkpoint.

    Args:
        settings: of the run.
        manifest: of the shards.
        start: where to begin, from `find_start`; what the folder held is replaced where it begins.
        models: folders of the corpus's tokenizers: `text`, `vq`, and `audio` where it has one.
        run: the folder to fill. The caller holds its lock.
        pictures: held-out pictures by the ids of their records, for the checks of consistency at
            the first step and at each checkpoint.

    Raises:
        UserError: when the shards hold nothing that the mix asks for, when Weights & Biases refuses
            the run, when the loss is no longer finite, when a check of consistency failed, or when
            a signal stopped it.
    """
    trainer = Trainer(settings, manifest)
    if start.checkpoint is not None:
        remove_unfinished(run)
        trainer.restore(read_checkpoint(start.checkpoint))
    if settings.alignment is not None and start.initial is not None:
        trainer.align_with(read_average(start.initial.checkpoint))
    with tracking(run, settings, step=trainer.step) as trackers:
        if start.checkpoint is None:
            _begin(trainer, run, start.initial)
            prepare_run(run, manifest.vocabulary, models)
        judged = run_with(
            trainer.average,
            folder=run,
            settings=settings,
            step=trainer.step,
            vocabulary=manifest.vocabulary,
            models=models,
        )
        compared = read_compared(judged, manifest, pictures=pictures)
        if compared is not None:
            check_all(judged, compared)

        def check() -> None:
            if compared is not None:
                check_model(judged, compared)

        _run_steps(trainer, run, start.decided, check, trackers)
    if trainer.step < settings.steps:
        raise UserError(
            f"stopped after step {trainer.step} of {settings.steps}; the checkpoint is written",
            "The same command resumes there.",
            exit_code=STOPPED,
        )


def what_decides(settings: TrainSettings, manifest: Manifest) -> dict[str, Any]:
    """Everything that decides the weights, by name."""
    has_sounds = manifest.vocabulary.has("audio")
    undecisive: dict[str, Any] = {
        # Of no effect without sounds: what was trained before there were any is trained still.
        **({} if has_sounds else {"mix": {"audio"}, "loss": {"audio"}, "tasks": {"audio"}}),
        "activation_checkpointing": True,
        "evaluate_every_steps": True,
        "evaluate_rows": True,
        "checkpoint_every_steps": True,
        "keep_checkpoints": True,
        "report_to": True,
        "loader": {"num_threads", "cache_gb", "bad_shards"},
    }
    return {
        **flat({"train": settings.model_dump(mode="json", exclude=undecisive)}, "."),
        _SHARDS: fingerprint(shards={shard.file: shard.sha256 for shard in manifest.shards}),
        _VOCABULARY: manifest.vocabulary.fingerprint,
        "the trainer's version": VERSION,
    }


@dataclass(slots=True, kw_only=True)
class _HeldOut:
    """The looks at held-out rows so far.

    Attributes:
        judged_by: which of the losses decides what is best.
        losses: of the last look, by modality; empty before the first one.
        best: the least of the losses that decide, and its step.
        looks_since: looks since the best one.
    """

    judged_by: str
    losses: dict[str, float] = field(default_factory=dict)
    best: tuple[float, int] | None = None
    looks_since: int = 0

    def take(self, losses: dict[str, float], step: int) -> bool:
        """Take in a look; returns whether it is the best one so far."""
        self.losses = losses
        if self.judged_by not in losses:
            return False
        if self.best is None or losses[self.judged_by] < self.best[0]:
            self.best, self.looks_since = (losses[self.judged_by], step), 0
            return True
        self.looks_since += 1
        return False


def _begin(trainer: Trainer, run: Path, initial: Initial | None) -> None:
    """Discard what a run's folder holds of another training, and take the first weights."""
    discard_checkpoints(run)
    (run / INITIAL).unlink(missing_ok=True)
    if initial is not None:
        commit_json(run / INITIAL, initial.to_json())
        trainer.begin_with(read_average(initial.checkpoint))


def _run_steps(
    trainer: Trainer,
    run: Path,
    decided: Mapping[str, Any],
    check: Callable[[], None],
    trackers: Trackers,
) -> None:
    """Do the steps that are left, or those until a signal comes; ends with a checkpoint."""
    settings = trainer.settings
    _drop_metrics_after(run, trainer.step)
    lines = read_metrics(run)
    # An alignment trades nats of held-out pictures for a sharper model.
    held_out = _HeldOut(judged_by="all" if settings.alignment is None else "alignment")
    for line in lines:
        if "held_out" in line:
            held_out.take(line["held_out"], line["step"])
    num_tokens = lines[-1]["tokens"] if lines else 0
    peak_flops = trainer.measure_peak_flops()
    with (
        catching_signals() as stop,
        (run / METRICS).open("a", buffering=1, encoding="utf-8") as metrics,  # a line at a time
        working("train") as show,
    ):
        show(trainer.step, settings.steps, "")
        while trainer.step < settings.steps and not stop.is_set():
            result = trainer.advance()
            num_tokens += result.num_tokens
            line = describe_step(trainer, result, num_tokens=num_tokens, peak_flops=peak_flops)
            is_last = trainer.step == settings.steps
            is_best, measured = False, None
            if trainer.stage_is_over or trainer.step % settings.evaluate_every_steps == 0:
                line |= describe_look(trainer, trainer.evaluate())
                is_best = held_out.take(line["held_out"], trainer.step)
                measured = line["held_out"].get(held_out.judged_by)
            metrics.write(json.dumps(line) + "\n")
            trackers.log(line)
            show(trainer.step, settings.steps, _figures(line, held_out))
            is_due = trainer.step % settings.checkpoint_every_steps == 0
            if is_last or is_best or is_due or trainer.step == decay_step(settings):
                _save(trainer, run, decided, measured, trackers)
                check()
        newest = newest_checkpoint(run)
        if newest is None or read_state(newest)["step"] < trainer.step:
            _save(trainer, run, decided, None, trackers)


def _save(
    trainer: Trainer,
    run: Path,
    decided: Mapping[str, Any],
    held_out: float | None,
    trackers: Trackers,
) -> None:
    settings = trainer.settings
    trackers.flush()
    save_checkpoint(
        run,
        trainer.checkpoint(decided, held_out=held_out),
        num_kept=settings.keep_checkpoints,
        decay_step=decay_step(settings),
    )


def _figures(line: Mapping[str, Any], held_out: _HeldOut) -> str:
    """The few figures that are shown."""
    shown = f"{line['tokens_per_s']:,.0f} tokens/s"
    if "all" in line["train"]:
        shown += f", loss {line['train']['all']:.2f}"
    parts = ", ".join(f"{name} {x:.2f}" for name, x in held_out.losses.items() if name != "all")
    if parts:
        shown += f", held out: {parts}"
    if held_out.best and held_out.looks_since >= _PATIENCE:
        loss, step = held_out.best
        shown += f" (best {loss:.2f} at step {step}: it now learns by heart; the best is kept)"
    return shown


def _drop_metrics_after(run: Path, step: int) -> None:
    """Cut the metrics to the steps that the weights have seen: a crash may have left more."""
    lines = [line for line in read_metrics(run) if line["step"] <= step]
    commit_text(run / METRICS, "".join(json.dumps(line) + "\n" for line in lines))
