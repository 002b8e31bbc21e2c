"""Documents to tokens and back, and what the model is told of each token."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenizer_cache.vocabulary import TokenizerDescription, Vocabulary, build_vocabulary
from trainer.data.packing import NO_TARGET
from trainer.data.rows import row_of
from trainer.data.sequence import (
    Segment,
    Writer,
    codes_of,
    codes_segment,
    read_document,
    text_segment,
)
from trainer.settings import LossSettings

GRID = (2, 3)


def vocabulary(grid: tuple[int, int] | None = GRID) -> Vocabulary:
    return build_vocabulary(
        TokenizerDescription(modality="text", num_tokens=40, fingerprint="t"),
    ).append_sides(4).extend(
        [
            TokenizerDescription(modality="image", num_tokens=16, fingerprint="i", grid=grid),
            TokenizerDescription(modality="audio", num_tokens=8, fingerprint="a", codebooks=2),
        ]
    )  # fmt: skip


WORDS = vocabulary()
PICTURE = codes_segment(np.arange(6).reshape(GRID), WORDS.image)
SIDES = (2, 3)


def text(*ids: int) -> Segment:
    return text_segment(ids, WORDS)


def shown(segments: list[Segment], *, ends: bool = True) -> list[str | int]:
    """Special and side tokens by name, other ids as numbers of their tokenizer."""
    names: list[str | int] = []
    for token in Writer(WORDS).write(segments, ends=ends).tokens.tolist():
        modality, _, own = WORDS.meaning_of(token)
        plain = {"special": lambda n: WORDS.special_tokens[n], "side": lambda n: f"side {n + 1}"}
        names.append(plain.get(modality, int)(own))
    return names


texts = st.lists(st.integers(0, 39), max_size=5).map(lambda ids: text_segment(ids, WORDS))
marked = st.sampled_from(["<negative>", "<style>"])
pictures = st.lists(st.integers(0, 15), min_size=6, max_size=6).map(
    lambda codes: codes_segment(np.array(codes).reshape(GRID), WORDS.image)
)
sounds = st.lists(st.integers(0, 3), min_size=2, max_size=8).filter(lambda c: len(c) % 2 == 0).map(
    lambda codes: codes_segment(np.array(codes).reshape(-1, 2), WORDS.range_of("audio"))
)  # fmt: skip
documents = st.lists(
    st.one_of(texts, pictures, sounds, st.builds(lambda t, m: t._replace(mark=m), texts, marked)),
    max_size=5,
)


@given(documents, st.booleans())
def test_what_is_written_is_read_back_and_as_long_as_was_said(
    segments: list[Segment], ends: bool
) -> None:
    writer = Writer(WORDS)
    written = writer.write(segments, ends=ends)
    assert len(written.tokens) == writer.length(segments) + ends
    again = read_document(written.tokens.tolist(), WORDS)
    assert [(one.modality, one.mark) for one in again] == [
        (one.modality, one.mark) for one in segments
    ]
    for one, other in zip(again, segments, strict=True):
        assert np.array_equal(one.ids, other.ids)
    rewritten = writer.write(again, ends=ends)
    assert np.array_equal(rewritten.tokens, written.tokens)
    assert np.array_equal(rewritten.places, written.places)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([7], "7 opens no segment"),
        ([2, 33], "ends in the middle"),
        ([1, 1], "and more follows"),
        ([2, WORDS.image.start, 3], "text tokens, and one is"),
    ],
)
def test_what_is_no_document_is_refused(tokens: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_document(tokens, WORDS)


def test_pictures_of_any_size_are_read_back_where_the_vocabulary_has_no_grid() -> None:
    words = vocabulary(grid=None)
    codes = np.arange(8).reshape(4, 2)
    written = Writer(words).write([codes_segment(codes, words.image)])
    (picture,) = read_document(written.tokens.tolist(), words)
    assert np.array_equal(codes_of(picture, words), codes)
    assert not written.places.any()


def test_a_text_that_was_cut_is_closed_and_its_end_is_not_learnt() -> None:
    whole = row_of(Writer(WORDS).write([text(5, 6, 7)]), seq_len=6, pad=0)
    cut = row_of(Writer(WORDS).write([text(5, 6, 7, 8).part(0, 3)], ends=False), seq_len=6, pad=0)
    close = WORDS.special("</txt>")
    assert whole.tokens[:5].tolist() == cut.tokens[:5].tolist()
    assert whole.tokens[4] == close
    assert close in whole.targets
    assert close not in cut.targets
    assert cut.targets[3] == NO_TARGET
    assert cut.weights[:5].tolist() == [1, 1, 1, 0, 0]


def test_loss_weights_are_those_of_modality_and_role() -> None:
    loss = LossSettings(text=0.5, image=2, condition=0.5)
    written = Writer(WORDS, loss=loss).write([text(5).as_("condition"), PICTURE])
    assert written.weights.tolist() == [0.25] * 3 + [2.0] * (1 + 2 + 6 + 1) + [1]


def test_codes_are_told_their_places_in_the_grid() -> None:
    written = Writer(WORDS).write([text(5), PICTURE, text(6)])
    assert written.places.tolist() == [0] * 3 + [0, 0, 1, 2, 3, 4, 5, 6, 7, 0] + [0] * 4


def test_what_is_hidden_is_left_out_and_the_rest_keeps_its_places() -> None:
    around = [
        PICTURE.part(0, 2).as_("condition"),
        PICTURE.part(2, 5).as_("hidden"),
        PICTURE.part(5, 6).as_("condition"),
    ]
    document = [*around, PICTURE.part(2, 5)]
    opening = ["<img>", *(f"side {side}" for side in SIDES)]
    expected = [*opening, 0, 1, 5, "</img>", *opening, 2, 3, 4, "</img>", "<eos>"]
    assert shown(document) == expected
    places = Writer(WORDS).write(document).places.tolist()
    assert places == [0, 0, 1, 2, 3, 7, 0, 0, 0, 3, 4, 5, 6, 0, 0]


def test_a_prompt_is_the_beginning_of_the_document_that_the_model_is_to_write() -> None:
    writer = Writer(vocabulary())
    conditions = [text(5).as_("condition"), text(6)._replace(mark="<negative>")]
    whole = writer.write([*conditions, text(7)])
    prompt = writer.prompt(conditions, "text")
    assert prompt.tokens.tolist() == whole.tokens[: len(prompt.tokens)].tolist()
    assert prompt.tokens.tolist()[-1] == WORDS.special("<txt>")


@pytest.mark.parametrize("codes", [np.full(GRID, 16), np.zeros((3, 3), int)])
def test_codes_that_the_vocabulary_does_not_have_are_refused(codes: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"and one is|the vocabulary says"):
        codes_segment(codes, WORDS.image)
    with pytest.raises(ValueError, match="40 text tokens, and one is 40"):
        text(40)
