"""A training process that is killed at random steps, and goes on, is an undisturbed one."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.conftest import Squares, train_run
from tests.trainer.test_train import SETTINGS, losses, tensors
from trainer.run import METRICS

PROGRAM = """
import json, sys
from pathlib import Path

import torch

from trainer.settings import TrainSettings
from tokenizer_cache.manifest import open_manifest
from trainer.train.loop import find_start, train

torch.set_num_threads(1)
settings, shards, models, run = json.loads(sys.argv[1])
models = {name: Path(folder) for name, folder in models.items()}
settings = TrainSettings.model_validate(settings)
manifest, run = open_manifest(Path(shards)), Path(run)
train(settings, manifest, find_start(settings, manifest, run), models=models, run=run)
"""


@pytest.mark.e2e
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("num_kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_at_random_steps_change_neither_the_losses_nor_the_weights(
    squares: Squares, tmp_path: Path, num_kills: int
) -> None:
    import torch

    # More than the kills leave time for.
    steps = min(60 + 30 * num_kills, 400)
    settings = SETTINGS.model_copy(update={"steps": steps, "checkpoint_every_steps": 7})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train_run(squares, whole, settings)
    killed.mkdir()
    models = {name: str(folder) for name, folder in squares.models.items()}
    task = [settings.model_dump(mode="json"), str(squares.shards), models, str(killed)]
    command = [sys.executable, "-c", PROGRAM, json.dumps(task)]
    draws = np.random.default_rng(5)
    for _ in range(num_kills):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_for_steps(process, killed / METRICS, int(draws.integers(3, 18)))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was killed in the middle"
    assert subprocess.run(command, check=False).returncode == 0
    assert losses(killed) == losses(whole)
    expected, found = tensors(whole), tensors(killed)
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def wait_for_steps(process: subprocess.Popen[bytes], path: Path, num_steps: int) -> None:
    """Come back when a training has written so many lines since it started, or has ended."""
    pause = threading.Event()
    first = None
    while process.poll() is None:
        lines = path.read_bytes().count(b"\n") if path.exists() else 0
        # What a kill took back is cut off when the training has started again.
        first = lines if first is None or lines < first else first
        if lines >= first + num_steps:
            return
        pause.wait(0.005)
