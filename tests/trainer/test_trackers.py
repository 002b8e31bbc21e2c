"""Curves in TensorBoard and Weights & Biases: each step once, whatever interrupts a training."""

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

from pipeline.errors import UserError
from tests.trainer.conftest import Squares, train_run
from tests.trainer.test_train import changed, stop_at_first_line
from trainer.run import METRICS, read_metrics
from trainer.train import trackers
from trainer.train.checkpoint import newest_checkpoint
from trainer.train.loop import find_start

BLOCK, HEADER = 32_768, 7
"""Bytes of a block of LevelDB's log format, and before its records and each of them."""


def settings(*names: str, **changes: object):
    return changed(report_to=names, checkpoint_every_steps=2, keep_checkpoints=3, **changes)


def train_until_killed(squares: Squares, run: Path, *names: str) -> None:
    """Train for some steps, and lose the last of them."""
    num_lines = len(read_metrics(run)) if (run / METRICS).exists() else 0
    stop_at_first_line(run / METRICS, num_lines=num_lines + 5)
    with pytest.raises(UserError, match="The same command resumes there"):
        train_run(squares, run, settings(*names, steps=10**6))
    newest = newest_checkpoint(run)
    assert newest is not None
    shutil.rmtree(newest)


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {
        name: [(each.step, each.value) for each in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def records(path: Path) -> Iterator[Record]:
    """The records of a file that W&B syncs from."""
    content, at, whole = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(content):
        _, size, kind = struct.unpack_from("<IHB", content, at)
        if BLOCK - at % BLOCK < HEADER or not kind:  # nothing begins in a block's last bytes
            at += BLOCK - at % BLOCK
            continue
        whole += content[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield Record.FromString(whole)
            whole = b""


def history(run: Path) -> dict[str, list[dict[str, float]]]:
    """The steps in the files of each W&B run, in the order of the files."""
    found: dict[str, list[dict[str, float]]] = {}
    paths = run.glob("wandb/offline-run-*/run-*.wandb")
    for path in sorted(paths, key=lambda path: path.stat().st_mtime):
        found.setdefault(path.stem, []).extend(
            {"/".join(x.nested_key) or x.key: json.loads(x.value_json) for x in record.history.item}
            for record in records(path)
            if record.HasField("history")
        )
    return found


@pytest.fixture(scope="module")
def killed(squares: Squares, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was killed twice."""
    run = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        for _ in range(2):
            train_until_killed(squares, run, "tensorboard", "wandb")
    return run


def test_tensorboard_has_the_lines_of_the_metrics_each_step_once(killed: Path) -> None:
    lines, found = read_metrics(killed), curves(killed)
    assert [step for step, _ in found["train/all"]] == list(range(1, len(lines) + 1))
    for name, value in (
        ("train/all", lambda line: line["train"]["all"]),
        ("train_by_task/text_to_image/image",
         lambda line: line["train_by_task"]["text_to_image"]["image"]),
        ("learning_rate_scale", lambda line: line["learning_rate_scale"]),
    ):  # fmt: skip
        assert [x for _, x in found[name]] == pytest.approx([value(line) for line in lines])
    looks = [line["step"] for line in lines if "held_out" in line]
    assert [step for step, _ in found["held_out/all"]] == looks


def test_the_curves_of_a_discarded_training_are_gone(squares: Squares, tmp_path: Path) -> None:
    train_run(squares, tmp_path, settings("tensorboard", steps=4))
    train_run(squares, tmp_path, settings("tensorboard", steps=2), fresh=True)
    assert [step for step, _ in curves(tmp_path)["train/all"]] == [1, 2]
    train_run(squares, tmp_path, settings(steps=2), fresh=True)
    assert not (tmp_path / "tensorboard").exists()


def test_weights_and_biases_has_each_step_once_and_in_one_run(killed: Path) -> None:
    (steps,) = history(killed).values()
    lines = read_metrics(killed)
    assert [each["_step"] for each in steps] == list(range(1, len(lines) + 1))
    assert steps[-1]["train/all"] == lines[-1]["train"]["all"]


def test_where_curves_go_does_not_decide_a_run(squares: Squares, tmp_path: Path) -> None:
    train_run(squares, tmp_path, settings(steps=2))
    assert find_start(settings("tensorboard", steps=2), squares.manifest, tmp_path).is_done


def test_what_is_not_installed_is_an_error_before_any_work(
    squares: Squares, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda _name: None)
    with pytest.raises(UserError, match="names wandb, which is not installed") as refused:
        train_run(squares, tmp_path, settings("wandb"))
    assert "pip install 'anymix[wandb]'" in refused.value.hint
    assert list(tmp_path.iterdir()) == []
