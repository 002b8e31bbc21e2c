import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.conftest import Squares, train_run
from trainer.evaluate.evaluation import Evaluation, evaluate
from trainer.evaluate.likelihood import condition_test, derangement, pairs_of
from trainer.evaluate.settings import EvaluateSettings
from trainer.generate.settings import SampleSettings
from trainer.run import EVALUATION, Run, load_run
from trainer.settings import ModelSettings, TrainSettings

SETTINGS = EvaluateSettings(num_resamples=1000, max_described=8)
DRAW_NOTHING = SETTINGS.model_copy(update={"max_drawn": 0, "max_described": 0})


def judged(run: Run, squares: Squares, settings: EvaluateSettings = SETTINGS) -> Evaluation:
    return evaluate(run, squares.manifest, settings, sampling=SampleSettings())


@pytest.fixture(scope="module")
def evaluation(trained: Run, squares: Squares) -> Evaluation:
    return judged(trained, squares)


def test_a_model_that_learnt_the_squares_is_seen_to_use_their_texts(
    evaluation: Evaluation, trained: Run
) -> None:
    test = evaluation.condition
    assert test is not None
    assert test.num_pairs == 96  # 32 image samples, and 32 mixed ones with two pictures
    assert test.excludes_zero
    assert 0 < test.low <= test.gain_nats <= test.high
    assert test.gain_nats == pytest.approx(test.shuffled_nats - test.own_nats)
    assert "the model uses its texts" in evaluation.sentence()
    written = json.loads((trained.folder / EVALUATION).read_text())
    assert written["condition"]["num_pairs"] == 96
    assert written["num_consistent"] == 4
    assert "On 4 held-out pictures the loss of packed rows" in written["sentence"]
    assert written["sentence"].startswith(evaluation.sentence())
    assert set(written["held_out"]) == {"text", "image", "mixed", "all"}
    assert set(written["held_out"]["mixed"]) == {"special", "text", "image", "all"}


def test_what_was_trained_is_told_from_what_was_held_out(evaluation: Evaluation) -> None:
    assert evaluation.condition_trained is not None
    assert evaluation.condition_trained.excludes_zero
    assert f"{evaluation.condition_trained.gain_nats:.2f} nats" in evaluation.sentence()
    # Held-out squares are the same sixteen as the trained ones.
    assert evaluation.given_back_trained is not None
    assert evaluation.given_back_trained > 0.8
    assert evaluation.given_back == pytest.approx(evaluation.given_back_trained, abs=0.2)
    assert "gives back" in evaluation.sentence_of_drawing()


def test_pairs_come_from_both_streams_in_turn_and_no_more_is_read(squares: Squares) -> None:
    keys = [pair.key.split("-")[0] for pair in pairs_of(squares.manifest, "validation", 6)]
    assert keys == ["image", "mixed"] * 3
    assert len(pairs_of(squares.manifest, "train", 10**6)) == 72 + 2 * 72


def test_an_untrained_model_is_not_seen_to_use_its_texts(squares: Squares, tmp_path: Path) -> None:
    settings = TrainSettings(
        model=ModelSettings(layers=1, width=32, heads=2),
        steps=1,
        seq_len=96,
        caption_max_tokens=16,
    )
    train_run(squares, tmp_path, settings)
    evaluation = judged(load_run(tmp_path), squares, DRAW_NOTHING)
    assert evaluation.sentence_of_drawing() == ""
    assert evaluation.condition is not None
    assert not evaluation.condition.excludes_zero
    assert "it is not shown that the model uses its texts" in evaluation.sentence()


def test_pairs_of_one_text_only_give_no_test(trained: Run, squares: Squares) -> None:
    (pair,) = pairs_of(squares.manifest, "validation", 1)
    assert condition_test(trained, [pair] * 5, SETTINGS) is None


@given(st.lists(st.sampled_from("abcde"), max_size=30), st.integers(0, 5))
def test_a_derangement_gives_every_place_another_text_and_uses_each_once(
    texts: list[str], seed: int
) -> None:
    others = derangement(texts, np.random.default_rng(seed))
    if others is None:
        assert not texts or max(map(texts.count, texts)) * 2 > len(texts)
    else:
        assert sorted(others) == list(range(len(texts)))
        assert all(texts[index] != texts[other] for index, other in enumerate(others))
