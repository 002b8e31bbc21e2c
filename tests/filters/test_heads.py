"""Heads on CLIP's image features: an aesthetic and an NSFW score."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from filters.clip_adopt import fit
from filters.heads import heads_fingerprint, read_head
from filters.measure import MeasureWorker
from filters.settings import MeasureSettings, OpenClipSettings
from pipeline.calibration import auc
from pipeline.engine.schemas import PICTURES, RECORDS
from pipeline.engine.stage import FitInputs, Work
from pipeline.engine.tables import read_table, write_table
from pipeline.errors import UserError
from tests.filters.clip_models import saved
from tests.filters.shapes import shape_record

NUM_TRAINED, NUM_HELD_OUT = 160, 80


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A published model, the records of some shapes, and a function that measures them."""
    root = tmp_path_factory.mktemp("heads")
    settings = OpenClipSettings(kind="open_clip", model=f"local-dir:{saved(root / 'theirs')}")
    (root / "clip").mkdir()
    list(fit(settings, FitInputs(tables={}, models={}), root / "clip"))
    records = [shape_record(index) for index in range(NUM_TRAINED + NUM_HELD_OUT)]
    write_table(root / "records.parquet", records, RECORDS)

    def measure(**heads):
        worker = MeasureWorker(MeasureSettings(clip=settings, heads=heads), {"clip": root / "clip"})
        rows = worker(Work(part="p", inputs={"records": root / "records.parquet"})).rows
        write_table(root / "pictures.parquet", rows, PICTURES)
        return read_table(root / "pictures.parquet").to_pylist()

    return measure, records


def head_of(path, *layers, **about):
    network = nn.Sequential(*layers)
    state = {f"layers.{name}": value for name, value in network.state_dict().items()}
    save_file(state, path, metadata=about or None)
    return path


def test_a_head_trained_on_stored_features_tells_what_it_was_trained_to(clip, tmp_path):
    measure, records = clip
    features = np.asarray([row["image_feature"] for row in measure()])
    is_red = np.asarray(["red" in record["caption"].split() for record in records])
    known = np.column_stack([features, np.ones(len(features))])[:NUM_TRAINED]
    penalty = 1e-3 * np.eye(known.shape[1])
    solved = np.linalg.solve(known.T @ known + penalty, known.T @ (2 * is_red[:NUM_TRAINED] - 1))
    weights = torch.from_numpy(solved.astype(np.float32))
    head = tmp_path / "red.safetensors"
    save_file({"weight": weights[None, :-1].contiguous(), "bias": weights[-1:].clone()}, head)
    rows = measure(aesthetic=head)
    scores = np.asarray([row["aesthetic"] for row in rows])
    np.testing.assert_allclose(scores, features @ solved[:-1] + solved[-1], atol=1e-4)
    assert all(row["nsfw"] is None for row in rows)
    held_out, right = scores[NUM_TRAINED:], is_red[NUM_TRAINED:]
    found = auc(held_out[right], held_out[~right], np.flatnonzero(right), np.flatnonzero(~right))
    assert found.value > 0.9


@pytest.mark.parametrize("activation", ["relu", "none"])
def test_several_layers_are_those_of_torch(tmp_path, activation):
    torch.manual_seed(0)
    between = nn.ReLU() if activation == "relu" else nn.Identity()
    layers = [nn.Linear(8, 16), between, nn.Linear(16, 4), between, nn.Linear(4, 1)]
    about = {"activation": activation, "output": "sigmoid"}
    head = read_head(head_of(tmp_path / "head.safetensors", *layers, **about))
    features = torch.nn.functional.normalize(torch.randn(5, 8), dim=-1)
    with torch.inference_mode():
        expected = nn.Sequential(*layers, nn.Sigmoid())(features)[:, 0]
    np.testing.assert_allclose(head(features.numpy()), expected.numpy(), atol=1e-6)


def test_layers_are_in_the_order_of_their_numbers(tmp_path):
    layers = [nn.Linear(3, 3) for _ in range(11)]
    head = read_head(
        head_of(tmp_path / "head.safetensors", *layers, nn.Linear(3, 1), activation="none")
    )
    np.testing.assert_array_equal(head.layers[10][0], layers[10].weight.detach().numpy())


def test_a_head_for_another_width_is_an_error_for_people(clip, tmp_path):
    measure, _ = clip
    head = head_of(tmp_path / "wide.safetensors", nn.Linear(768, 1))
    with pytest.raises(UserError, match=r"of width 768, and the model .* has features of width 32"):
        measure(nsfw=head)


def test_another_head_in_its_place_is_another_fingerprint(tmp_path):
    path = tmp_path / "head.safetensors"
    first = heads_fingerprint({"nsfw": head_of(path, nn.Linear(3, 1))})
    assert heads_fingerprint({"nsfw": path}) == first
    assert heads_fingerprint({"nsfw": head_of(path, nn.Linear(3, 1))}) != first


@pytest.mark.parametrize(
    ("layers", "about", "says"),
    [
        ([nn.Linear(3, 2)], {}, "do not fit together"),
        ([nn.Linear(3, 2), nn.Linear(3, 1)], {"activation": "relu"}, "do not fit together"),
        ([nn.Linear(3, 2), nn.Linear(2, 1)], {}, "does not say its activation"),
        ([nn.Linear(3, 1)], {"output": "softmax"}, "output 'softmax'"),
        ([nn.Linear(3, 1, bias=False)], {}, "without a part"),
        ([nn.ReLU()], {}, "no layer"),
        ([nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)], {"activation": "relu"}, "do not"),
    ],
)
def test_a_file_that_is_no_head_is_named(tmp_path, layers, about, says):
    with pytest.raises(UserError, match=says) as error:
        read_head(head_of(tmp_path / "head.safetensors", *layers, **about))
    assert "head.safetensors" in str(error.value)


def test_a_head_that_is_not_there_or_is_a_pickle_is_named(tmp_path):
    torch.save(nn.Linear(3, 1).state_dict(), tmp_path / "head.pt")
    for name in ("gone.safetensors", "head.pt"):
        with pytest.raises(UserError, match="cannot be read"):
            read_head(tmp_path / name)
