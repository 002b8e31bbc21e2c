"""Documents through the layouts of the published models, and beside transformers' own mappings."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.chameleon.modeling_chameleon import ChameleonImageVocabularyMapping
from transformers.models.emu3.modeling_emu3 import Emu3ImageVocabularyMapping

from tokenizer_cache.layouts.published import (
    chameleon_layout,
    emu3_layout,
    janus_layout,
    llamagen_layout,
)
from tokenizer_cache.layouts.sequence import (
    Document,
    Layout,
    Text,
    TokenSequence,
    joined,
    one_space,
)
from tokenizer_cache.vocabulary import TokenizerDescription, Vocabulary, build_vocabulary
from trainer.data.sequence import (
    Writer,
    codes_of,
    codes_segment,
    ids_of,
    read_document,
    text_segment,
)

GRID = (2, 3)
NUM_TEXT, NUM_CODES = 100, 103


class Bytes:
    """A text tokenizer in which a character is its number."""

    def encode(self, text: str) -> list[int]:
        return [ord(each) for each in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


def numbered(*names: str, start: int = NUM_TEXT) -> dict[str, int]:
    plain = {f"word-{number}": number for number in range(NUM_TEXT)}
    return plain | {name: start + number for number, name in enumerate(names)}


JANUS = numbered(
    "<｜begin▁of▁sentence｜>",  # noqa: RUF001 - DeepSeek's spelling
    "<｜end▁of▁sentence｜>",  # noqa: RUF001
    "<begin_of_image>",
    "<end_of_image>",
)
# As in the published map, no code's id follows from its number.
CHAMELEON = numbered(
    "<s>", "</s>", "<image>", "<eoss>", "<racm3:break>",
    *("IMGIMG" + str(code).translate(str.maketrans("0123456789", "ABCDEFGHIJ")) + "Z"
      for code in reversed(range(NUM_CODES))),
)  # fmt: skip
EMU3 = numbered(
    "<image>", "<|extra_200|>", "<|extra_201|>", "<|extra_203|>", "<|extra_204|>",
    "<|image token|>", "<|image start|>", "<|image end|>",
    *(f"<|visual token {code:06}|>" for code in range(NUM_CODES)),
)  # fmt: skip

LAYOUTS: dict[str, Layout] = {
    "janus": janus_layout(JANUS, grid=GRID, codebook_size=NUM_CODES),
    "llamagen": llamagen_layout(vocab_size=NUM_TEXT, grid=GRID, codebook_size=NUM_CODES),
    "chameleon": chameleon_layout(CHAMELEON, grid=GRID),
    "emu3": emu3_layout(EMU3, Bytes()),
}


def vocabulary(grid: tuple[int, int] | None = GRID) -> Vocabulary:
    text = TokenizerDescription(modality="text", num_tokens=NUM_TEXT, fingerprint="t")
    image = TokenizerDescription(modality="image", num_tokens=NUM_CODES, fingerprint="i", grid=grid)
    return build_vocabulary(text).append_sides(8).append(image)


class Ours:
    """What the trainer reads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def write(self, document: Document) -> TokenSequence:
        segments = [
            codes_segment(each, self._vocabulary.image)
            if isinstance(each, np.ndarray)
            else text_segment(each, self._vocabulary)
            for each in document
        ]
        return one_space(Writer(self._vocabulary).write(segments).tokens.tolist())

    def read(self, sequence: TokenSequence) -> list[Text | np.ndarray]:
        return [
            ids_of(each).tolist() if each.modality == "text" else codes_of(each, self._vocabulary)
            for each in read_document(sequence.ids.tolist(), self._vocabulary)
        ]


texts = st.lists(st.integers(0, NUM_TEXT - 1), max_size=5)


def images(grids: st.SearchStrategy[tuple[int, int]]) -> st.SearchStrategy[np.ndarray]:
    return grids.flatmap(
        lambda grid: st.lists(
            st.integers(0, NUM_CODES - 1), min_size=grid[0] * grid[1], max_size=grid[0] * grid[1]
        ).map(lambda codes: np.array(codes, np.int64).reshape(grid))
    )


def documents(grids: st.SearchStrategy[tuple[int, int]]) -> st.SearchStrategy[Document]:
    return st.lists(st.one_of(texts, images(grids)), max_size=5)


def plain(document: Document) -> list[object]:
    return [each.tolist() if isinstance(each, np.ndarray) else each for each in document]


def sequence(*ids: int) -> TokenSequence:
    return TokenSequence(ids=np.array(ids), is_code=np.zeros(len(ids), bool))


@pytest.mark.parametrize("name", LAYOUTS)
@settings(deadline=None)
@given(document=documents(st.just(GRID)))
def test_ours_to_a_published_layout_and_back_is_the_same_document(
    name: str, document: Document
) -> None:
    ours, theirs = Ours(vocabulary()), LAYOUTS[name]
    start = ours.write(joined(document))
    there = theirs.write(ours.read(start))
    again = ours.write(theirs.read(there))
    assert again.ids.tolist() == start.ids.tolist()
    assert theirs.write(theirs.read(there)).ids.tolist() == there.ids.tolist()


@settings(deadline=None)
@given(document=documents(st.tuples(st.integers(1, 8), st.integers(1, 8))))
def test_images_of_any_size_go_to_emu3_and_back_with_side_tokens(document: Document) -> None:
    ours, theirs = Ours(vocabulary(grid=None)), LAYOUTS["emu3"]
    start = ours.write(document)
    assert plain(ours.read(start)) == plain(document)
    assert plain(theirs.read(theirs.write(ours.read(start)))) == plain(joined(document))


def test_janus_and_llamagen_count_codes_in_a_space_of_their_own() -> None:
    codes = np.arange(6).reshape(GRID)
    janus = LAYOUTS["janus"].write([[7, 8], codes])
    begin, end = JANUS["<begin_of_image>"], JANUS["<end_of_image>"]
    assert janus.ids.tolist() == [100, 7, 8, begin, *range(6), end, 101]
    assert janus.is_code.tolist() == [False] * 4 + [True] * 6 + [False] * 2
    llamagen = LAYOUTS["llamagen"].write([[7, 8], codes])
    assert llamagen.ids.tolist() == [7, 8, *range(6)]
    assert llamagen.is_code.tolist() == [False] * 2 + [True] * 6


def test_chameleons_ids_are_those_of_transformers() -> None:
    codes = np.array([[0, 9, 10], [99, 100, 102]])
    ids = LAYOUTS["chameleon"].write([codes]).ids.tolist()
    assert ids[:2] == [CHAMELEON["<s>"], CHAMELEON["<racm3:break>"]]
    assert ids[-2:] == [CHAMELEON["<eoss>"], CHAMELEON["</s>"]]
    theirs = ChameleonImageVocabularyMapping(CHAMELEON).convert_img2bpe(torch.from_numpy(codes))
    assert ids[2:-2] == theirs.flatten().tolist()


def test_emu3s_ids_are_those_of_transformers() -> None:
    codes = np.array([[0, 9, 10], [99, 100, 102]])
    ids = LAYOUTS["emu3"].write([codes]).ids.tolist()
    head = [EMU3["<|extra_203|>"], EMU3["<|image start|>"], *map(ord, "2*3")]
    assert ids[:6] == [*head, EMU3["<|image token|>"]]
    assert ids[-3:] == [EMU3[name] for name in ("<|extra_201|>", "<|image end|>", "<|extra_204|>")]
    theirs = Emu3ImageVocabularyMapping(EMU3).convert_img2bpe(torch.from_numpy(codes))
    assert ids[6:-3] == theirs.flatten().tolist()


def of_text(token: int) -> Callable[[Layout], object]:
    return lambda layout: layout.write([[token]])


def of_image(*shape: int, code: int = 0) -> Callable[[Layout], object]:
    return lambda layout: layout.write([np.full(shape, code)])


@pytest.mark.parametrize(
    ("name", "use", "message"),
    [
        ("janus", of_text(JANUS["<begin_of_image>"]), "a text contains 102"),
        ("chameleon", of_text(CHAMELEON["IMGIMGAZ"]), "which is no text in this layout"),
        ("emu3", of_text(10**6), "text tokens, and one is 1000000"),
        ("janus", of_image(3, 3), r"an image has \(3, 3\) codes; the layout has \(2, 3\)"),
        ("emu3", of_image(3, 3, code=NUM_CODES), "103 codes, and one is 103"),
        ("chameleon", lambda layout: layout.read(sequence(5)), r"at 0 stands \[5\], not \[100\]"),
        ("chameleon", lambda layout: layout.read(sequence(100, 5)), "ends in the middle"),
        ("chameleon", lambda layout: layout.read(sequence(100, 104, 5)), "5 stands in an image"),
        ("chameleon", lambda layout: layout.read(sequence(100, 101, 5)), "and more follows"),
        ("emu3", lambda layout: layout.read(sequence(103, 106, 50, 105)), "'2' is no size"),
        ("janus", lambda layout: layout.read(sequence(100, 102, 5, 101)), "there are no 6 codes"),
    ],
)
def test_what_a_layout_has_no_ids_for_is_refused(
    name: str, use: Callable[[Layout], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        use(LAYOUTS[name])
