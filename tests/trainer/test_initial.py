import shutil
from pathlib import Path

import pytest
import torch

from pipeline.engine.storage import commit_json, read_json
from pipeline.errors import UserError
from tests.trainer.conftest import Squares, train_run
from tests.trainer.test_train import changed
from trainer.run import VOCABULARY, read_metrics
from trainer.settings import TrainSettings
from trainer.train.checkpoint import best_checkpoint, read_average, read_state
from trainer.train.loop import INITIAL, find_start
from trainer.train.trainer import Trainer


@pytest.fixture(scope="module")
def first(squares: Squares, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    train_run(squares, folder, changed(steps=40, learning_rate=0.01))
    return folder


FINE = {"steps": 3, "mix": {"text": 0, "image": 1, "mixed": 0}, "warmup": 0, "warmdown": 0}


def fine() -> TrainSettings:
    return changed(**FINE)


def test_a_run_begins_with_the_averaged_weights_of_another_at_step_0(
    squares: Squares, first: Path, tmp_path: Path
) -> None:
    train_run(squares, tmp_path, fine(), init=first)
    best = best_checkpoint(first)
    assert best is not None
    expected = Trainer(fine(), squares.manifest)
    expected.begin_with(read_average(best))
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert [line["learning_rate_scale"] for line in lines] == [1, 1, 1]
    assert lines[0]["train"] == expected.advance().losses
    assert lines[0]["train"]["image"] < read_metrics(first)[0]["train"]["image"] - 0.2
    noted = read_json(tmp_path / INITIAL)
    assert (noted["run"], noted["step"]) == (str(first), read_state(best)["step"])


def test_the_weights_that_a_run_began_with_decide_it(
    squares: Squares, first: Path, tmp_path: Path
) -> None:
    train_run(squares, tmp_path, fine(), init=first)
    assert find_start(fine(), squares.manifest, tmp_path, init=first).is_done
    with pytest.raises(UserError, match=r"begins with \(--init\) was .* and is not set"):
        find_start(fine(), squares.manifest, tmp_path)
    assert not torch.equal(average(tmp_path), average(first))


def average(run: Path) -> torch.Tensor:
    best = best_checkpoint(run)
    assert best is not None
    return read_average(best)["head.weight"]


def test_a_model_of_another_size_is_refused_by_what_differs(
    squares: Squares, first: Path, tmp_path: Path
) -> None:
    wider = changed(**FINE, model={"layers": 2, "width": 64, "heads": 2})
    with pytest.raises(UserError, match=r"its width is 32, the recipe's train\.model\.width is 64"):
        find_start(wider, squares.manifest, tmp_path, init=first)


def test_ids_of_another_meaning_are_named(squares: Squares, first: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(first, other)
    vocabulary = read_json(first / VOCABULARY)
    ids = vocabulary["ranges"][1]
    ids["tokenizer"] = "of-another-corpus"
    commit_json(other / VOCABULARY, vocabulary)
    last = ids["start"] + ids["size"] - 1
    message = f"ids {ids['start']} to {last} are text of another tokenizer"
    with pytest.raises(UserError, match=message):
        find_start(fine(), squares.manifest, tmp_path / "run", init=other)
    with pytest.raises(UserError, match="holds no trained model"):
        find_start(fine(), squares.manifest, tmp_path / "run", init=tmp_path / "empty")
