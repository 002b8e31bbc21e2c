"""Trains the any-to-any model on a corpus's shards and fills the run's folder.

The same settings and shards give the same weights on the same machine, also when the training was
stopped and resumed in between.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.storage import commit_text
from pipeline.errors import STOPPED, UserError
from tokenizer_cache.manifest import Manifest, open_manifest
from trainer.checkpoint import (
    CHECKPOINTS,
    find_checkpoint,
    read_checkpoint,
    read_state,
    save_checkpoint,
)
from trainer.interruption import catching_signals
from trainer.run import METRICS, prepare_run, read_metrics
from trainer.settings import TrainSettings
from trainer.trainer import StepResult, Trainer

VERSION = 2
"""Raised when the code changes what a training gives."""


def train(
    settings: TrainSettings, *, shards: Path, models: Mapping[str, Path], run: Path, resume: bool
) -> None:
    """Train a model and fill the run's folder, with a progress bar on stderr.

    Ctrl-C and SIGTERM stop it after the step in hand, with a checkpoint.

    Args:
        settings: the whole training.
        shards: a folder of shards with its manifest.
        models: folders of the corpus's tokenizers: `text`, `vq`, and `audio` where it has one.
        run: the folder to fill.
        resume: go on from the run's checkpoint, where it has one; else what it has is replaced.

    Raises:
        UserError: when the shards hold nothing that the mix asks for, when the checkpoint is of
            another training, or when a signal stopped it.
    """
    manifest = open_manifest(shards)
    name = training_fingerprint(settings, manifest)
    trainer = Trainer(settings, manifest)
    folder = find_checkpoint(run) if resume else None
    if folder is None:
        shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)
        prepare_run(run, manifest.vocabulary, models)
    else:
        _check_same_training(folder, name)
        trainer.restore(read_checkpoint(folder))
    _drop_metrics_after(run, trainer.step)
    _run_steps(trainer, run, name)
    if trainer.step < settings.steps:
        raise UserError(
            f"stopped after step {trainer.step} of {settings.steps}; the checkpoint is written",
            "The same command with --resume goes on from there.",
            exit_code=STOPPED,
        )


def is_trained(settings: TrainSettings, *, shards: Path, run: Path) -> bool:
    """Whether a run holds the finished training of these settings on these shards."""
    folder = find_checkpoint(run)
    if folder is None:
        return False
    state = read_state(folder)
    wanted = (settings.steps, training_fingerprint(settings, open_manifest(shards)))
    return (state["step"], state["fingerprint"]) == wanted


def training_fingerprint(settings: TrainSettings, manifest: Manifest) -> str:
    """Changes with anything that decides the weights."""
    has_sounds = manifest.vocabulary.has("audio")
    undecisive: dict[str, Any] = {
        # Of no effect without sounds: what was trained before there were any is trained still.
        **({} if has_sounds else {"mix": {"audio"}, "loss": {"audio"}}),
        "evaluate_every_steps": True,
        "evaluate_rows": True,
        "checkpoint_every_steps": True,
        "loader": {"num_threads", "cache_gb", "bad_shards"},
    }
    return fingerprint(
        version=VERSION,
        settings=settings.model_dump(mode="json", exclude=undecisive),
        vocabulary=manifest.vocabulary.fingerprint,
        shards={shard.file: shard.sha256 for shard in manifest.shards},
    )


def _run_steps(trainer: Trainer, run: Path, name: str) -> None:
    """Do the steps that are left, or those until a signal comes; ends with a checkpoint."""
    settings = trainer.settings
    with (
        catching_signals() as stop,
        (run / METRICS).open("a", buffering=1, encoding="utf-8") as metrics,  # a line at a time
        _progress() as progress,
    ):
        task = progress.add_task("train", total=settings.steps, completed=trainer.step, figures="")
        held_out: dict[str, float] = {}
        while trainer.step < settings.steps and not stop.is_set():
            result = trainer.advance()
            line = _describe_step(trainer, result)
            is_last = trainer.step == settings.steps
            if is_last or trainer.step % settings.evaluate_every_steps == 0:
                held_out = trainer.evaluate()
                line |= {"held_out": held_out, "shares": trainer.loader.achieved_shares()}
                if trainer.loader.num_bad:
                    line["bad"] = trainer.loader.num_bad
            metrics.write(json.dumps(line) + "\n")
            progress.update(task, advance=1, figures=_figures(line, held_out))
            if is_last or trainer.step % settings.checkpoint_every_steps == 0 or stop.is_set():
                save_checkpoint(run, trainer.checkpoint(name))


def _describe_step(trainer: Trainer, result: StepResult) -> dict[str, Any]:
    return {
        "step": trainer.step,
        "tokens": trainer.step * result.num_tokens,
        "tokens_per_s": round(result.num_tokens / result.seconds, 1),
        "train": result.losses,
    }


def _figures(line: Mapping[str, Any], held_out: Mapping[str, float]) -> str:
    """The few figures that stand beside the progress bar."""
    text = f"{line['tokens_per_s']:,.0f} tokens/s, loss {line['train']['all']:.2f}"
    if held_out:
        parts = ", ".join(f"{name} {loss:.2f}" for name, loss in held_out.items() if name != "all")
        text += f", held out: {parts}"
    return text


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=Console(stderr=True),
    )


def _check_same_training(folder: Path, name: str) -> None:
    found = read_state(folder)["fingerprint"]
    if found != name:
        raise UserError(
            f"{folder} is of another training ({found}, not {name}): "
            "the recipe or the shards have changed",
            "Train without --resume to start anew, or give another --out.",
        )


def _drop_metrics_after(run: Path, step: int) -> None:
    """Cut the metrics to the steps that the weights have seen: a crash may have left more."""
    lines = [line for line in read_metrics(run) if line["step"] <= step]
    commit_text(run / METRICS, "".join(json.dumps(line) + "\n" for line in lines))
