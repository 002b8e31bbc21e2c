import shutil
from pathlib import Path

import pytest
import torch

from pipeline.errors import UserError
from trainer.run import Run, load_run


def test_a_folder_without_a_checkpoint_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no trained model"):
        load_run(tmp_path)


def test_a_run_can_be_moved_away_from_its_corpus(trained: Run, tmp_path: Path) -> None:
    moved = load_run(Path(shutil.copytree(trained.folder, tmp_path / "moved")))
    assert moved.step == trained.settings.steps
    assert moved.vocabulary == trained.vocabulary
    for one, other in zip(moved.model.parameters(), trained.model.parameters(), strict=True):
        assert torch.equal(one, other)
