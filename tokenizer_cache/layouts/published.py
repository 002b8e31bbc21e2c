"""The layouts of Janus, LlamaGen, Chameleon and Emu3, as their own code has them.

Ids of special tokens are looked up by name in the model's own tokenizer; none stands here.

Legend: T tokens of a sequence, h w code grid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tokenizer_cache.layouts.sequence import (
    Document,
    Reader,
    Text,
    TextCodec,
    TokenSequence,
    check_text,
    flat_codes,
    joined,
    one_space,
)
from tokenizer_cache.vocabulary import Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoSpacesLayout:
    """Janus and LlamaGen: the codes count in an id space of their own, in raster order.

    Attributes:
        grid: rows and columns of every image.
        codebook_size: number of codes.
        vocab_size: number of text tokens, with those below.
        before: ids before the document.
        begin: ids before an image's codes.
        end: ids after them.
        after: ids after the document.
    """

    grid: Grid
    codebook_size: int
    vocab_size: int
    before: tuple[int, ...] = ()
    begin: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def write(self, document: Document) -> TokenSequence:
        """The ids of a document."""
        taken = {*self.before, *self.begin, *self.end, *self.after}
        ids, is_code = list(self.before), [False] * len(self.before)
        for segment in joined(document):
            if isinstance(segment, np.ndarray):
                codes = flat_codes(segment, self.grid, self.codebook_size)
                ids += [*self.begin, *codes, *self.end]
                is_code += [False] * len(self.begin) + [True] * len(codes)
                is_code += [False] * len(self.end)
            else:
                check_text(segment, self.vocab_size, taken)
                ids += segment
                is_code += [False] * len(segment)
        ids += self.after
        is_code += [False] * len(self.after)
        return TokenSequence(ids=np.array(ids, np.int64), is_code=np.array(is_code, bool))

    def read(self, sequence: TokenSequence) -> list[Text | np.ndarray]:
        """The document of such ids."""
        reader = Reader(sequence)
        reader.expect(*self.before)
        document: list[Text | np.ndarray] = []
        while not reader.is_at_end(self.after):
            if reader.is_code or (self.begin and reader.take(*self.begin)):
                codes = reader.codes(self.grid[0] * self.grid[1])
                document.append(np.array(codes, np.int64).reshape(self.grid))
                reader.expect(*self.end)
            else:
                document.append([reader.next()])
        reader.expect(*self.after)
        reader.expect_end()
        return joined(document)


@dataclass(frozen=True, slots=True, kw_only=True)
class OneSpaceLayout:
    """Chameleon and Emu3: texts and codes count in one id space, in raster order.

    Attributes:
        code_ids: the id of each code.
        vocab_size: number of ids.
        before: id before the document.
        begin: id before an image.
        end: ids after its codes.
        after: id after the document.
        grid: rows and columns of every image; None where the image says them.
        sizes: writes them as text, ROWS*COLUMNS, between `begin` and `first`.
        first: id before the first code, where there is a size.
        row_end: id after each row.
    """

    code_ids: tuple[int, ...]
    vocab_size: int
    before: int
    begin: int
    end: tuple[int, ...]
    after: int
    grid: Grid | None = None
    sizes: TextCodec | None = None
    first: int | None = None
    row_end: int | None = None

    def write(self, document: Document) -> TokenSequence:
        """The ids of a document."""
        taken = {*self.code_ids, self.before, self.begin, *self.end, self.after}
        taken |= {each for each in (self.first, self.row_end) if each is not None}
        ids = [self.before]
        for segment in joined(document):
            if isinstance(segment, np.ndarray):
                ids += self._image_ids(segment)
            else:
                check_text(segment, self.vocab_size, taken)
                ids += segment
        return one_space([*ids, self.after])

    def read(self, sequence: TokenSequence) -> list[Text | np.ndarray]:
        """The document of such ids."""
        code_of = {each: code for code, each in enumerate(self.code_ids)}
        reader = Reader(sequence)
        reader.expect(self.before)
        document: list[Text | np.ndarray] = []
        while not reader.take(self.after):
            if reader.take(self.begin):
                document.append(self._image(reader, code_of))
            else:
                document.append([reader.next()])
        reader.expect_end()
        return joined(document)

    def _image_ids(self, codes: np.ndarray) -> list[int]:
        flat = flat_codes(codes, self.grid, len(self.code_ids))
        head: list[int] = []
        if self.sizes is not None and self.first is not None:
            head = [*self.sizes.encode("{}*{}".format(*codes.shape)), self.first]
        row = [] if self.row_end is None else [self.row_end]
        rows = [
            [*(self.code_ids[code] for code in each), *row]
            for each in np.array(flat).reshape(codes.shape).tolist()
        ]
        return [self.begin, *head, *(each for row in rows for each in row), *self.end]

    def _image(self, reader: Reader, code_of: Mapping[int, int]) -> np.ndarray:
        grid = self.grid
        if grid is None:
            assert self.sizes is not None, "what has no grid says its size"  # noqa: S101
            assert self.first is not None, "and ends it"  # noqa: S101
            text = self.sizes.decode(reader.until(self.first))
            size = re.fullmatch(r"(\d+)\*(\d+)", text)
            if size is None:
                message = f"{text!r} is no size of an image such as 90*90"
                raise ValueError(message)
            grid = (int(size[1]), int(size[2]))
        codes = []
        for _ in range(grid[0]):
            codes.append([_code(reader, code_of) for _ in range(grid[1])])
            if self.row_end is not None:
                reader.expect(self.row_end)
        reader.expect(*self.end)
        return np.array(codes, np.int64).reshape(grid)


def janus_layout(
    tokens: Mapping[str, int], *, grid: Grid = (24, 24), codebook_size: int = 16_384
) -> TwoSpacesLayout:
    """Janus (Wu et al., arXiv:2410.13848): `tokens` are those of its text tokenizer."""
    return TwoSpacesLayout(
        grid=grid,
        codebook_size=codebook_size,
        vocab_size=max(tokens.values()) + 1,
        before=(tokens["<｜begin▁of▁sentence｜>"],),  # noqa: RUF001 - DeepSeek's spelling
        begin=(tokens["<begin_of_image>"],),
        end=(tokens["<end_of_image>"],),
        after=(tokens["<｜end▁of▁sentence｜>"],),  # noqa: RUF001
    )


def llamagen_layout(
    *, vocab_size: int, grid: Grid = (16, 16), codebook_size: int = 16_384
) -> TwoSpacesLayout:
    """LlamaGen (Sun et al., arXiv:2406.06525): a text's tokens, then codes without any mark.

    The model reads the text as features of a T5 with this many tokens.
    """
    return TwoSpacesLayout(grid=grid, codebook_size=codebook_size, vocab_size=vocab_size)


def chameleon_layout(tokens: Mapping[str, int], *, grid: Grid = (32, 32)) -> OneSpaceLayout:
    """Chameleon (arXiv:2405.09818): `tokens` are the `vocabulary_map` of its configuration.

    A code is spelled in letters: `IMGIMGBADZ` is 103.
    """
    digits = str.maketrans("ABCDEFGHIJ", "0123456789")
    spelled = {
        int(name[len("IMGIMG") : -1].translate(digits)): token
        for name, token in tokens.items()
        if re.fullmatch(r"IMGIMG[A-J]+Z", name)
    }
    return OneSpaceLayout(
        code_ids=tuple(spelled[code] for code in range(len(spelled))),
        vocab_size=max(tokens.values()) + 1,
        before=tokens["<s>"],
        begin=tokens["<racm3:break>"],
        end=(tokens["<eoss>"],),
        after=tokens["</s>"],
        grid=grid,
    )


def emu3_layout(tokens: Mapping[str, int], text: TextCodec) -> OneSpaceLayout:
    """Emu3 (Wang et al., arXiv:2409.18869): images of any size, with a token after each row.

    Args:
        tokens: the `vocabulary_map` of its configuration.
        text: its text tokenizer, which writes an image's size.
    """
    numbered = {
        int(name.removeprefix("<|visual token ").removesuffix("|>")): token
        for name, token in tokens.items()
        if name.startswith("<|visual token ")
    }
    return OneSpaceLayout(
        code_ids=tuple(numbered[code] for code in range(len(numbered))),
        vocab_size=max(tokens.values()) + 1,
        before=tokens["<|extra_203|>"],
        begin=tokens["<|image start|>"],
        end=(tokens["<|extra_201|>"], tokens["<|image end|>"]),
        after=tokens["<|extra_204|>"],
        sizes=text,
        first=tokens["<|image token|>"],
        row_end=tokens["<|extra_200|>"],
    )


def _code(reader: Reader, code_of: Mapping[int, int]) -> int:
    token = reader.next()
    if token not in code_of:
        message = f"id {token} stands in an image and is no code"
        raise ValueError(message)
    return code_of[token]
