"""Documents, and the sequences of ids that models read.

A document is texts and images in turn. Every layout writes it as a sequence of ids and reads it
back; `source.read` and then `target.write` converts. Texts are tokens of one text tokenizer and
images codes of one image tokenizer, the same on both sides: a layout only numbers them.

Legend: T tokens of a sequence, h w code grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tokenizer_cache.vocabulary import Grid

Text = list[int]
"""The tokenizer's own tokens."""
Document = Sequence[Text | np.ndarray]
"""Texts, and images as (h, w) codes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSequence:
    """A document as a model reads it.

    Attributes:
        ids: (T,) int64.
        is_code: (T,) bool: which ids count in an id space of the codes' own, with an embedding and
            a head for images alone.
    """

    ids: np.ndarray
    is_code: np.ndarray


class Layout(Protocol):
    """How a model numbers a document. Texts that follow each other may become one."""

    def write(self, document: Document) -> TokenSequence:
        """The ids of a document.

        Raises:
            ValueError: when the layout has no ids for it.
        """

    def read(self, sequence: TokenSequence) -> list[Text | np.ndarray]:
        """The document of such ids.

        Raises:
            ValueError: when they are no such document.
        """


class TextCodec(Protocol):
    """The text tokenizer, for what a layout spells out in text."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a text."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens."""


def joined(document: Document) -> list[Text | np.ndarray]:
    """The document with texts that follow each other as one, and without empty ones."""
    parts: list[Text | np.ndarray] = []
    for segment in document:
        last = parts[-1] if parts else None
        if isinstance(segment, np.ndarray):
            parts.append(segment)
        elif isinstance(last, list):
            parts[-1] = last + segment
        elif segment:
            parts.append(segment)
    return parts


class Reader:
    """A sequence and how far it has been read; what does not fit is a `ValueError`."""

    def __init__(self, sequence: TokenSequence) -> None:
        self._ids: list[int] = sequence.ids.tolist()
        self._is_code: list[bool] = sequence.is_code.tolist()
        self._place = 0

    @property
    def is_code(self) -> bool:
        """Whether the next id counts in the codes' own space."""
        return self._place < len(self._ids) and self._is_code[self._place]

    def next(self) -> int:
        """The next id."""
        if self._place == len(self._ids):
            raise ValueError("the sequence ends in the middle")
        self._place += 1
        return self._ids[self._place - 1]

    def take(self, *ids: int) -> bool:
        """Whether these come next; they are then behind."""
        stop = self._place + len(ids)
        if self._ids[self._place : stop] != list(ids) or any(self._is_code[self._place : stop]):
            return False
        self._place = stop
        return True

    def expect(self, *ids: int) -> None:
        """Read these."""
        if not self.take(*ids):
            message = f"at {self._place} stands {self._ids[self._place :][:1]}, not {list(ids)}"
            raise ValueError(message)

    def until(self, last: int) -> list[int]:
        """The ids before `last`, which is behind then."""
        held = []
        while not self.take(last):
            held.append(self.next())
        return held

    def codes(self, number: int) -> list[int]:
        """So many ids of the codes' own space."""
        stop = self._place + number
        if not all(self._is_code[self._place : stop]) or stop > len(self._ids):
            message = f"at {self._place} there are no {number} codes"
            raise ValueError(message)
        return [self.next() for _ in range(number)]

    def is_at_end(self, last: tuple[int, ...]) -> bool:
        """Whether only these are left."""
        return self._place + len(last) >= len(self._ids)

    def expect_end(self) -> None:
        """Nothing is left."""
        if self._place != len(self._ids):
            message = f"the document ends at {self._place}, and more follows"
            raise ValueError(message)


def one_space(ids: Sequence[int]) -> TokenSequence:
    """The sequence of ids that all count in one space."""
    return TokenSequence(ids=np.array(ids, np.int64), is_code=np.zeros(len(ids), bool))


def flat_codes(codes: np.ndarray, grid: Grid | None, codebook_size: int) -> list[int]:
    """The codes of an image in raster order, if there are such codes and such a grid."""
    if grid is not None and codes.shape != grid:
        message = f"an image has {codes.shape} codes; the layout has {grid}"
        raise ValueError(message)
    flat: list[int] = codes.ravel().tolist()
    check_range(flat, codebook_size, "codes")
    return flat


def check_text(text: Text, vocab_size: int, taken: Iterable[int]) -> None:
    """A text must not contain what opens an image or ends a document."""
    check_range(text, vocab_size, "text tokens")
    if wrong := set(text).intersection(taken):
        message = f"a text contains {min(wrong)}, which is no text in this layout"
        raise ValueError(message)


def check_range(values: Sequence[int], size: int, what: str) -> None:
    """Raise a `ValueError` unless all values are 0 to `size` - 1."""
    if any(not 0 <= each < size for each in values):
        wrong = next(each for each in values if not 0 <= each < size)
        message = f"there are {size} {what}, and one is {wrong}"
        raise ValueError(message)
