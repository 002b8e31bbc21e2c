import os
import signal
import threading
from pathlib import Path

import pytest
import torch

from pipeline.errors import UserError
from tests.trainer.conftest import Squares
from trainer.checkpoint import find_checkpoint, read_checkpoint, save_checkpoint
from trainer.run import METRICS, read_metrics
from trainer.settings import ModelSettings, TrainSettings
from trainer.train import is_trained, train, training_fingerprint
from trainer.trainer import Trainer

SETTINGS = TrainSettings(
    model=ModelSettings(layers=2, width=32, heads=2),
    seq_len=96,
    rows_per_step=4,
    steps=12,
    caption_max_tokens=16,
    evaluate_every_steps=6,
    evaluate_rows=4,
    checkpoint_every_steps=5,
)


def start(squares: Squares, run: Path, settings: TrainSettings = SETTINGS) -> None:
    train(settings, shards=squares.shards, models=squares.models, run=run, resume=False)


def resume(squares: Squares, run: Path, settings: TrainSettings = SETTINGS) -> None:
    train(settings, shards=squares.shards, models=squares.models, run=run, resume=True)


def losses(run: Path) -> list[dict[str, float]]:
    return [line["train"] for line in read_metrics(run)]


def tensors(run: Path) -> dict[str, torch.Tensor]:
    folder = find_checkpoint(run)
    assert folder is not None
    checkpoint = read_checkpoint(folder)
    return {**checkpoint.model, **checkpoint.optimizer}


@pytest.mark.parametrize("num_steps", [1, 7])
def test_a_training_that_went_on_from_a_checkpoint_is_bit_for_bit_an_undisturbed_one(
    squares: Squares, tmp_path: Path, num_steps: int
) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    start(squares, whole)
    trainer = Trainer(SETTINGS, squares.manifest)
    before = [dict(trainer.advance().losses) for _ in range(num_steps)]
    name = training_fingerprint(SETTINGS, squares.manifest)
    save_checkpoint(resumed, trainer.checkpoint(name))
    resume(squares, resumed)
    assert before + losses(resumed) == losses(whole)
    expected, found = tensors(whole), tensors(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_signal_stops_after_the_step_in_hand_and_leaves_a_checkpoint(
    squares: Squares, tmp_path: Path
) -> None:
    endless = SETTINGS.model_copy(update={"steps": 10**6})
    stop_at_first_line(tmp_path / METRICS)
    with pytest.raises(UserError, match="stopped after step"):
        start(squares, tmp_path, endless)
    folder = find_checkpoint(tmp_path)
    assert folder is not None
    assert read_checkpoint(folder).step == len(losses(tmp_path))
    assert not is_trained(endless, shards=squares.shards, run=tmp_path)


def test_lines_of_steps_that_a_crash_took_back_are_dropped(
    squares: Squares, tmp_path: Path
) -> None:
    trainer = Trainer(SETTINGS, squares.manifest)
    trainer.advance()
    name = training_fingerprint(SETTINGS, squares.manifest)
    save_checkpoint(tmp_path, trainer.checkpoint(name))
    lines = ['{"step": 1, "train": {}}', '{"step": 2, "train": {}}', '{"step": 3, "tr']
    (tmp_path / METRICS).write_text("\n".join(lines))
    resume(squares, tmp_path)
    assert [line["step"] for line in read_metrics(tmp_path)] == list(range(1, 13))


def test_training_lowers_the_held_out_loss(squares: Squares, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"steps": 60, "evaluate_every_steps": 10})
    start(squares, tmp_path, settings)
    held_out = [line["held_out"] for line in read_metrics(tmp_path) if "held_out" in line]
    assert set(held_out[0]) == {"special", "text", "image", "all"}
    assert held_out[-1]["all"] < held_out[0]["all"] * 0.7
    assert is_trained(settings, shards=squares.shards, run=tmp_path)


def test_a_checkpoint_of_another_training_is_refused(squares: Squares, tmp_path: Path) -> None:
    start(squares, tmp_path, SETTINGS.model_copy(update={"steps": 1}))
    with pytest.raises(UserError, match="is of another training"):
        resume(squares, tmp_path)


def stop_at_first_line(path: Path) -> None:
    """Send this process a SIGTERM as soon as a file has a line: the training is in its loop."""

    def watch() -> None:
        pause = threading.Event()
        while not (path.exists() and path.stat().st_size):
            pause.wait(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
