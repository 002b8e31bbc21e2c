import numpy as np
import pytest
import torch

from trainer.data.packing import NO_TARGET, Row, build_row
from trainer.train.tally import Tally

IDS = {"special": range(4), "text": range(4, 8), "image": range(8, 10), "audio": range(10, 12)}
TASKS = ["text_to_image", "text_alone", "image_to_text"]


@pytest.fixture
def rows() -> list[Row]:
    """Two rows of six tokens: a picture after its text and a prose; a text after its picture."""
    found = [
        build_row([[4, 5, 8, 9], [6, 7]], seq_len=6, pad=0),
        build_row([[8, 9, 5, 1]], seq_len=6, pad=0),
    ]
    found[0].tasks.extend(TASKS[:2])
    found[1].tasks.extend(TASKS[2:])
    return found


@pytest.fixture
def tally(rows: list[Row]) -> Tally:
    # Targets are 5 8 9 -, 7 -, 9 5 1 - - -.
    nats = [1.0, 2, 4, 50, 8, 50, 16, 32, 64, 50, 50, 50]
    targets = torch.from_numpy(np.concatenate([row.targets for row in rows]))
    return Tally.of(torch.tensor(nats), targets, rows, IDS)


def test_each_modality_has_the_mean_and_the_number_of_its_own_targets(tally: Tally) -> None:
    assert tally.counts() == {"special": 1, "text": 3, "image": 3}
    mean_of_text, mean_of_image = (1 + 8 + 32) / 3, (2 + 4 + 16) / 3
    assert tally.means() == pytest.approx(
        {"special": 64, "text": mean_of_text, "image": mean_of_image, "all": 127 / 7}
    )


def test_tasks_and_streams_are_told_apart(tally: Tally) -> None:
    means = {name: part.means() for name, part in tally.by_task().items()}
    assert means["text_to_image"] == pytest.approx({"text": 1, "image": 3, "all": 7 / 3})
    assert means["image_to_text"] == pytest.approx(
        {"image": 16, "text": 32, "special": 64, "all": 112 / 3}
    )
    counts = {name: part.counts() for name, part in tally.by_stream().items()}
    assert counts == {"text": {"text": 1}, "image": {"special": 1, "text": 2, "image": 3}}


def test_parts_add_up(rows: list[Row], tally: Tally) -> None:
    parts = Tally.empty(IDS)
    for row, nats in zip(rows, ([1.0, 2, 4, 0, 8, 0], [16.0, 32, 64, 0, 0, 0]), strict=True):
        parts += Tally.of(torch.tensor(nats), torch.from_numpy(row.targets), [row], IDS)
    assert parts.means() == tally.means()
    assert parts.by_task().keys() == tally.by_task().keys() == set(TASKS)


def test_without_a_target_there_is_no_mean() -> None:
    row = build_row([], seq_len=2, pad=0)
    assert row.targets.tolist() == [NO_TARGET] * 2
    nothing = Tally.of(torch.zeros(2), torch.from_numpy(row.targets), [row], IDS)
    assert nothing.means() == nothing.counts() == nothing.by_stream() == {}


def test_a_loss_that_is_not_finite_shows_in_the_mean(rows: list[Row]) -> None:
    targets = torch.from_numpy(rows[1].targets)
    found = Tally.of(torch.full((6,), torch.nan), targets, rows[1:], IDS)
    assert np.isnan(found.means()["all"])
