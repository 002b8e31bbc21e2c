"""The small CLIP that is trained on the corpus itself, on shapes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.clip import tokenize, weights_name
from filters.clip_bootstrap import METRICS, fit
from filters.clip_training import contrastive_loss, replace_words, shift
from filters.settings import ClipSettings
from pipeline.engine.schemas import RECORDS
from pipeline.engine.stage import FitInputs
from pipeline.engine.storage import read_json
from pipeline.engine.tables import write_table
from pipeline.errors import UserError
from tests.filters.shapes import shape_record

NUM_RECORDS = 60
SETTINGS = ClipSettings(
    image_size=32, width=32, vision_layers=1, text_layers=1, steps=9, batch_size=16,
    rounds=2, drop_share=0.25,
)  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    path = tmp_path_factory.mktemp("bootstrap") / "records.parquet"
    write_table(path, [shape_record(index) for index in range(NUM_RECORDS)], RECORDS)
    return FitInputs(tables={"records": [path]}, models={})


@pytest.fixture(scope="module")
def fitted(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    return folder, list(fit(SETTINGS, inputs, folder))


def test_every_fold_does_all_of_its_steps_over_the_rounds(fitted):
    _, progress = fitted
    assert [each.done for each in progress[:-1]] == list(range(1, 19))
    assert progress[-1].total == 18


def test_pairs_that_fit_worst_are_left_out_after_the_first_round(fitted):
    folder, _ = fitted
    first, second = read_json(folder / METRICS)["rounds"]
    assert first["num_pairs"] == NUM_RECORDS
    assert second["num_pairs"] == pytest.approx(0.75 * NUM_RECORDS, abs=1)


def test_held_out_auc_is_told_with_its_interval_and_whether_it_is_too_low(fitted):
    folder, progress = fitted
    found = read_json(folder / METRICS)
    area = found["rounds"][-1]["auc"]
    assert 0 <= area["low"] <= area["value"] <= area["high"] <= 1
    assert progress[-1].figures["auc"] == area["value"]
    assert found["is_weak"]  # nine steps teach nothing


def test_fitting_again_gives_the_same_bytes(inputs, fitted, tmp_path):
    list(fit(SETTINGS, inputs, tmp_path))
    for name in (weights_name(0), weights_name(1), METRICS):
        assert (tmp_path / name).read_bytes() == (fitted[0] / name).read_bytes()


def test_a_corpus_without_pictures_says_what_to_do(tmp_path):
    write_table(tmp_path / "records.parquet", [], RECORDS)
    inputs = FitInputs(tables={"records": [tmp_path / "records.parquet"]}, models={})
    with pytest.raises(UserError, match="no pictures"):
        list(fit(SETTINGS, inputs, tmp_path))


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 4))
def test_a_caption_that_is_there_several_times_is_told_from_the_others_alone(captions, times):
    tokens = torch.arange(captions).repeat(times)[:, None]
    right = 50.0 * (tokens == tokens.T)
    assert contrastive_loss(right, tokens).item() == pytest.approx(math.log(times), abs=1e-4)


def test_without_equal_captions_the_loss_is_open_clips():
    from open_clip import ClipLoss

    image, text = torch.nn.functional.normalize(torch.randn(2, 6, 5), dim=-1)
    ours = contrastive_loss(7 * image @ text.T, torch.arange(6)[:, None])
    assert ours.item() == pytest.approx(ClipLoss()(image, text, 7.0).item(), abs=1e-5)


@given(st.integers(0, 99), st.floats(0, 1))
def test_words_are_replaced_and_what_frames_them_is_not(seed, share):
    tokens = tokenize(["a red circle", "two crosses on a very long line of words"], SETTINGS)
    found = replace_words(tokens, share, np.random.default_rng(seed))
    is_word = (tokens > 0) & (tokens < 49_406)
    assert torch.equal(found[~is_word], tokens[~is_word])
    assert ((found > 0) & (found < 49_406))[is_word].all()
    if share == 0:
        assert torch.equal(found, tokens)


@given(st.integers(0, 99), st.integers(0, 3))
def test_pictures_are_moved_by_no_more_than_was_said(seed, most):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(256, size=(3, 8, 8, 3), dtype=np.uint8)
    moved = shift(pixels, most, rng)
    assert moved.shape == pixels.shape
    for before, after in zip(pixels, moved, strict=True):
        inner = after[most : 8 - most, most : 8 - most]
        side = len(inner)
        assert any(
            np.array_equal(inner, before[top : top + side, left : left + side])
            for top in range(9 - side) for left in range(9 - side)
        )  # fmt: skip
