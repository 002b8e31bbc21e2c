"""Cached logits, guidance, and how a token is drawn."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tokenizer_cache.vocabulary import TokenizerDescription, Vocabulary, build_vocabulary
from trainer.data.batch import build_model, collate
from trainer.data.rows import row_of
from trainer.data.sequence import Segment, Writer, Written, codes_segment, text_segment
from trainer.generate.engine import Continuation, guided, pick, uniforms
from trainer.generate.settings import PickSettings
from trainer.model.decoder import Decoder
from trainer.settings import ModelSettings

TEXT = TokenizerDescription(modality="text", num_tokens=40, fingerprint="t")
IMAGE = TokenizerDescription(modality="image", num_tokens=16, fingerprint="i", grid=(2, 3))
AUDIO = TokenizerDescription(modality="audio", num_tokens=8, fingerprint="a", codebooks=2)
PLAIN = build_vocabulary(TEXT, IMAGE, AUDIO)
SIDED = build_vocabulary(TEXT).append_sides(4).extend([IMAGE, AUDIO])


def random_model(vocabulary: Vocabulary) -> Decoder:
    model = build_model(ModelSettings(layers=2, width=32, heads=4), vocabulary, seed=0)
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def uncached(model: Decoder, written: Written) -> torch.Tensor:
    """(T, V) logits of a whole document at once."""
    row = row_of(written, seq_len=len(written.tokens), pad=0)
    return model.head(collate([row], torch.device("cpu")).hidden(model))[0]


def documents(vocabulary: Vocabulary) -> list[list[Segment]]:
    """One with each modality, one with a mark, and one that fills a gap."""
    picture = codes_segment(np.arange(6).reshape(2, 3), vocabulary.image)
    text = text_segment([1, 2, 3], vocabulary)
    sound = codes_segment(np.array([[0, 1], [2, 3]]), vocabulary.range_of("audio"))
    around = [picture.part(0, 1), picture.part(1, 3).as_("hidden"), picture.part(3, 6)]
    return [
        [text, picture, sound, text, picture],
        [text, text._replace(mark="<negative>"), picture, text],
        [text, *around, text, picture, sound],
    ]


@pytest.mark.parametrize("vocabulary", [PLAIN, SIDED], ids=["plain", "with sides"])
def test_cached_logits_are_those_of_the_whole_document_for_every_modality(
    vocabulary: Vocabulary,
) -> None:
    model = random_model(vocabulary)
    wholes = [Writer(vocabulary).write(segments) for segments in documents(vocabulary)]
    num_prompt, num_new = (12, 5, 12), 13  # the last prompt ends behind the gap
    assert all(
        len(whole.tokens) >= num + num_new for whole, num in zip(wholes, num_prompt, strict=True)
    )
    prompts = [
        Written(whole.tokens[:num], whole.weights[:num], whole.places[:num])
        for whole, num in zip(wholes, num_prompt, strict=True)
    ]
    continuation = Continuation(model, vocabulary, prompts, max_new_tokens=num_new)
    expected = [uncached(model, whole) for whole in wholes]
    for step in range(num_new):
        places = [num + step for num in num_prompt]
        for logits, whole, place in zip(continuation.logits, expected, places, strict=True):
            torch.testing.assert_close(logits, whole[place - 1])
        tokens = [whole.tokens[place] for whole, place in zip(wholes, places, strict=True)]
        continuation.append(torch.tensor(tokens))


def test_a_gap_is_filled_at_the_places_that_it_has_in_the_picture() -> None:
    """The place is told by the prompt, as the bracket alone does not say it."""
    model, writer = random_model(PLAIN), Writer(PLAIN)
    picture = codes_segment(np.arange(6).reshape(2, 3), PLAIN.image)
    around = [picture.part(0, 2), picture.part(2, 4).as_("hidden"), picture.part(4, 6)]
    whole = writer.write([*around, picture.part(2, 4)])
    prompt = writer.prompt(around, "image", start=2)
    num = len(prompt.tokens)
    assert prompt.places.tolist() == whole.places[:num].tolist()
    continuation = Continuation(model, PLAIN, [prompt], max_new_tokens=2)
    for place in (num, num + 1):
        torch.testing.assert_close(continuation.logits[0], uncached(model, whole)[place - 1])
        continuation.append(torch.tensor([whole.tokens[place]]))


def test_guidance_moves_the_logits_away_from_those_without_the_condition() -> None:
    conditional, free = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    assert guided(conditional, free, cfg_scale=3).tolist() == [[4.0, -2.0]]
    assert torch.equal(guided(conditional, free, cfg_scale=1), conditional)
    assert torch.equal(guided(conditional, free, cfg_scale=0), free)


shares = st.floats(0.01, 1)
draws = st.floats(0, 1, exclude_max=True)
some_logits = arrays.arrays(np.float32, 6, elements=st.floats(-8, 8, width=32))
some_settings = st.builds(
    PickSettings, temperature=st.floats(1e-3, 10), top_k=st.integers(1, 9), top_p=shares,
    min_p=st.floats(0, 1),
)  # fmt: skip


@given(some_logits, draws, some_settings)
def test_what_is_cut_off_is_never_drawn(
    logits: np.ndarray, draw: float, settings: PickSettings
) -> None:
    chosen = pick(
        torch.from_numpy(logits)[None], torch.tensor([draw], dtype=torch.float64), settings
    ).item()
    scaled = (logits.astype(float) - logits.max()) / settings.temperature
    p = np.exp(scaled) / np.exp(scaled).sum()
    likelier = np.sort(p[p > p[chosen]])[::-1]
    assert len(likelier) < settings.top_k
    assert p[chosen] >= settings.min_p * p.max() * (1 - 1e-9)
    kept = np.sort(p)[::-1][: settings.top_k].sum()
    assert likelier.sum() < settings.top_p * kept + 1e-9


@given(some_logits, draws, some_settings)
def test_temperature_0_and_each_cut_at_its_end_take_the_likeliest(
    logits: np.ndarray, draw: float, settings: PickSettings
) -> None:
    for end in ({"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}):
        greedy = settings.model_copy(update=end)
        uniform = torch.tensor([draw], dtype=torch.float64)
        chosen = pick(torch.from_numpy(logits)[None], uniform, greedy).item()
        assert logits[chosen] == pytest.approx(logits.max(), abs=1e-6 * 10)


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53])
def test_the_ends_of_the_interval_pick_an_id_that_is_allowed(draw: float) -> None:
    logits = torch.tensor([[0.0, 3.0, 2.0, 1.0, float("-inf")]])
    at_the_end = torch.tensor([draw], dtype=torch.float64)
    assert pick(logits, at_the_end, PickSettings(top_k=2)).item() in {1, 2}
    assert pick(logits, at_the_end, PickSettings(top_k=9)).item() in {0, 1, 2, 3}


def test_picks_have_the_frequencies_of_the_softmax() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().repeat(20_000, 1)
    uniform = uniforms(0, 0, num_steps=20_000)
    for settings, expected in (
        (PickSettings(), [0.5, 0.3, 0.2]),
        (PickSettings(top_p=0.7), [0.625, 0.375, 0.0]),
        (PickSettings(min_p=0.5), [0.625, 0.375, 0.0]),
        (PickSettings(top_p=0.81), [0.5, 0.3, 0.2]),
    ):
        picked = pick(logits, uniform, settings).bincount(minlength=3) / 20_000
        torch.testing.assert_close(picked, torch.tensor(expected), atol=0.02, rtol=0)


def test_draws_depend_on_the_seed_and_the_number_of_the_sample() -> None:
    def draw(seed: int, number: int) -> torch.Tensor:
        return uniforms(seed, number, num_steps=4)

    assert torch.equal(draw(1, 2), draw(1, 2))
    assert not torch.equal(draw(1, 2), draw(1, 3))
    assert not torch.equal(draw(1, 2), draw(2, 2))
