import json
from pathlib import Path

import pytest
import torch

from pipeline.errors import UserError
from trainer.train.checkpoint import (
    CHECKPOINTS,
    Checkpoint,
    best_checkpoint,
    newest_checkpoint,
    read_checkpoint,
    read_state,
    remove_unfinished,
    save_checkpoint,
)


def checkpoint(step: int, held_out: float | None = None) -> Checkpoint:
    return Checkpoint(
        step=step,
        decided={"train.steps": 9},
        settings={"steps": 9},
        loader={"rows": [[[1, 2]]]},
        held_out=held_out,
        model={"weight": torch.full((2, 3), float(step)).t()},
        average={"weight": torch.zeros(3, 2)},
        optimizer={"weight:step": torch.tensor(float(step))},
    )


def save(run: Path, *steps: tuple[int, float | None], num_kept: int = 1, decay: int = 0) -> None:
    for step, held_out in steps:
        save_checkpoint(run, checkpoint(step, held_out), num_kept=num_kept, decay_step=decay)


def kept(run: Path) -> list[int]:
    return sorted(read_state(folder)["step"] for folder in (run / CHECKPOINTS).iterdir())


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    save(tmp_path, (3, 1.5))
    folder = newest_checkpoint(tmp_path)
    assert folder is not None
    found = read_checkpoint(folder)
    assert (found.step, found.decided, found.held_out) == (3, {"train.steps": 9}, 1.5)
    assert (found.settings, found.loader) == ({"steps": 9}, {"rows": [[[1, 2]]]})
    assert torch.equal(found.model["weight"], torch.full((3, 2), 3.0))
    assert torch.equal(found.average["weight"], torch.zeros(3, 2))
    assert torch.equal(found.optimizer["weight:step"], torch.tensor(3.0))


def test_the_newest_are_kept(tmp_path: Path) -> None:
    save(tmp_path, (5, None), (999_998, None), (999_999, None), (1_000_000, None), num_kept=2)
    assert kept(tmp_path) == [999_999, 1_000_000]


def test_the_best_and_the_last_before_the_decay_are_kept_too(tmp_path: Path) -> None:
    save(tmp_path, (10, 3.0), (20, 2.0), (30, 2.5), (40, 2.6), (50, 2.7), decay=35)
    assert kept(tmp_path) == [20, 30, 50]
    best = best_checkpoint(tmp_path)
    assert best is not None
    assert read_state(best)["step"] == 20


def test_without_held_out_rows_the_newest_is_the_best(tmp_path: Path) -> None:
    save(tmp_path, (10, None), (20, None))
    assert best_checkpoint(tmp_path) == newest_checkpoint(tmp_path)


def test_what_a_killed_save_left_is_removed(tmp_path: Path) -> None:
    save(tmp_path, (3, None))
    left = tmp_path / CHECKPOINTS / ".step-000004.123.tmp"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    remove_unfinished(tmp_path)
    assert [path.name for path in (tmp_path / CHECKPOINTS).iterdir()] == ["step-000003"]


def test_a_checkpoint_of_another_version_says_so(tmp_path: Path) -> None:
    folder = tmp_path / CHECKPOINTS / "step-000003"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"step": 3, "fingerprint": "f"}))
    with pytest.raises(UserError, match="written by another version of anymix"):
        best_checkpoint(tmp_path)


def test_a_run_without_a_checkpoint_has_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    assert best_checkpoint(tmp_path) is None
