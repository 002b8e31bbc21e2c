import numpy as np
import pytest
import torch

from tokenizer_cache.vocabulary import TokenizerDescription, Vocabulary, build_vocabulary
from trainer.data.batch import build_model, collate
from trainer.data.rows import row_of
from trainer.data.sequence import Written
from trainer.generate.engine import Continuation, pick, uniforms
from trainer.model.decoder import Decoder
from trainer.settings import ModelSettings


@pytest.fixture
def vocabulary() -> Vocabulary:
    return build_vocabulary(
        TokenizerDescription(modality="text", num_tokens=40, fingerprint="t"),
        TokenizerDescription(modality="image", num_tokens=16, fingerprint="i", grid=(2, 3)),
    )


@pytest.fixture
def model(vocabulary: Vocabulary) -> Decoder:
    model = build_model(ModelSettings(layers=2, width=32, heads=4), vocabulary, seed=0)
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def written(ids: list[int]) -> Written:
    """A text, `<img>`, which is id 4 in every vocabulary, and the codes after it."""
    begin = ids.index(4)
    places = [0] * begin + list(range(1, len(ids) - begin + 1))
    return Written(np.array(ids), np.ones(len(ids)), np.array(places))


def logits_at_the_end(model: Decoder, vocabulary: Vocabulary, ids: list[int]) -> torch.Tensor:
    batch = collate([row_of(written(ids), seq_len=len(ids), pad=0)], torch.device("cpu"))
    return model.head(batch.hidden(model))[0, -1]


def test_cached_prompts_of_unlike_lengths_have_the_logits_that_each_has_alone(
    model: Decoder, vocabulary: Vocabulary
) -> None:
    begin, code = vocabulary.special("<img>"), vocabulary.image.start
    prompts = [[40, 41, 42, begin], [50, begin]]
    continuation = Continuation(model, vocabulary, list(map(written, prompts)), max_new_tokens=3)
    for step in range(4):
        for prompt, logits in zip(prompts, continuation.logits, strict=True):
            torch.testing.assert_close(logits, logits_at_the_end(model, vocabulary, prompt))
        if step < 3:
            new = [code + step, code + 2 * step]
            continuation.append(torch.tensor(new))
            for prompt, token in zip(prompts, new, strict=True):
                prompt.append(token)


def test_only_the_likeliest_ids_are_picked() -> None:
    logits = torch.tensor([[0.0, 3.0, 2.0, 1.0]]).repeat(200, 1)
    draws = uniforms(0, 0, num_steps=200)
    assert set(pick(logits, draws, temperature=1.0, top_k=2).tolist()) == {1, 2}
    assert set(pick(logits, draws, temperature=0.0, top_k=4).tolist()) == {1}


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53])
def test_the_ends_of_the_interval_pick_an_id_that_is_allowed(draw: float) -> None:
    logits = torch.tensor([[0.0, 3.0, 2.0, 1.0, float("-inf")]])
    at_the_end = torch.tensor([draw], dtype=torch.float64)
    assert pick(logits, at_the_end, temperature=1.0, top_k=2).item() in {1, 2}
    assert pick(logits, at_the_end, temperature=1.0, top_k=9).item() in {0, 1, 2, 3}


def test_picks_have_the_frequencies_of_the_softmax() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().repeat(20_000, 1)
    picked = pick(logits, uniforms(0, 0, num_steps=20_000), temperature=1.0, top_k=3)
    shares = picked.bincount(minlength=3) / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.02, rtol=0)


def test_draws_depend_on_the_seed_and_the_number_of_the_sample() -> None:
    def draw(seed: int, number: int) -> torch.Tensor:
        return uniforms(seed, number, num_steps=4)

    assert torch.equal(draw(1, 2), draw(1, 2))
    assert not torch.equal(draw(1, 2), draw(1, 3))
    assert not torch.equal(draw(1, 2), draw(2, 2))
