from pathlib import Path

import torch

from trainer.checkpoint import Checkpoint, find_checkpoint, read_checkpoint, save_checkpoint


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(
        step=step,
        fingerprint="f",
        settings={"steps": 9},
        loader={"rows": [[[1, 2]]]},
        model={"weight": torch.full((2, 3), float(step)).t()},
        optimizer={"weight:step": torch.tensor(float(step))},
    )


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(3))
    folder = find_checkpoint(tmp_path)
    assert folder is not None
    found = read_checkpoint(folder)
    assert (found.step, found.fingerprint) == (3, "f")
    assert (found.settings, found.loader) == ({"steps": 9}, {"rows": [[[1, 2]]]})
    assert torch.equal(found.model["weight"], torch.full((3, 2), 3.0))
    assert torch.equal(found.optimizer["weight:step"], torch.tensor(3.0))


def test_only_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    for step in (5, 999_999, 1_000_000):
        save_checkpoint(tmp_path, checkpoint(step))
    folder = find_checkpoint(tmp_path)
    assert folder is not None
    assert read_checkpoint(folder).step == 1_000_000
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_run_without_a_checkpoint_has_none(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path) is None
