import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from tests.trainer.conftest import Squares, train_run
from tokenizer_cache.publishing import publish
from tokenizer_cache.text import describe_text
from tokenizer_cache.vocabulary import TokenizerDescription, build_vocabulary
from trainer.evaluate import condition_test, derangement, evaluate, held_out_pairs
from trainer.run import EVALUATION, Run, load_run
from trainer.settings import EvaluateSettings, TrainSettings

SETTINGS = EvaluateSettings(num_resamples=1000)


def test_a_model_that_learnt_the_squares_is_seen_to_use_their_texts(
    trained: Run, squares: Squares
) -> None:
    evaluation = evaluate(trained, shards=squares.shards, settings=SETTINGS)
    test = evaluation.condition
    assert test is not None
    assert test.num_pairs == 96  # 32 image samples, and 32 mixed ones with two pictures
    assert test.excludes_zero
    assert 0 < test.low <= test.gain_nats <= test.high
    assert test.gain_nats == pytest.approx(test.shuffled_nats - test.own_nats)
    assert "the model uses its texts" in evaluation.sentence()
    written = json.loads((trained.folder / EVALUATION).read_text())
    assert written["condition"]["num_pairs"] == 96
    assert written["sentence"] == evaluation.sentence()
    assert set(written["held_out"]) == {"text", "image", "mixed", "all"}
    assert set(written["held_out"]["mixed"]) == {"special", "text", "image", "all"}


def test_an_untrained_model_is_not_seen_to_use_its_texts(squares: Squares, tmp_path: Path) -> None:
    settings = TrainSettings(steps=1, seq_len=96, caption_max_tokens=16)
    train_run(squares, tmp_path, settings)
    evaluation = evaluate(load_run(tmp_path), shards=squares.shards, settings=SETTINGS)
    assert evaluation.condition is not None
    assert not evaluation.condition.excludes_zero
    assert "it is not shown that the model uses its texts" in evaluation.sentence()


def test_pairs_of_one_text_only_give_no_test(trained: Run, squares: Squares) -> None:
    pair = held_out_pairs(squares.manifest, 1)[0]
    assert condition_test(trained, [pair] * 5, SETTINGS) is None


def test_shards_of_another_vocabulary_are_refused(
    trained: Run, squares: Squares, tmp_path: Path
) -> None:
    image = TokenizerDescription(modality="image", num_tokens=8, fingerprint="other", grid=(4, 4))
    vocabulary = build_vocabulary(describe_text(squares.models["text"]), image)
    publish(tmp_path, [], vocabulary, state="")
    with pytest.raises(UserError, match=f"{trained.vocabulary.fingerprint} is wanted"):
        evaluate(trained, shards=tmp_path, settings=SETTINGS)


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
