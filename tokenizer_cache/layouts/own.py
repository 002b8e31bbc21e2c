"""Our layout: what the trainer reads, for any document.

Legend: T tokens of a sequence, h w code grid, G codes of an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokenizer_cache.code_order import to_grid, to_sequence
from tokenizer_cache.layouts.sequence import (
    Document,
    Reader,
    Text,
    TokenSequence,
    check_range,
    one_space,
)
from tokenizer_cache.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnLayout:
    """Ours: `<txt> text </txt>`, `<img> codes </img>` and `<eos>`, in one id space.

    With side tokens in the vocabulary an image starts with its rows and columns.
    """

    vocabulary: Vocabulary

    def write(self, document: Document) -> TokenSequence:
        """The ids of a document."""
        words, special = self.vocabulary, self.vocabulary.special
        ids: list[int] = []
        for segment in document:
            if isinstance(segment, np.ndarray):
                ids += [special("<img>"), *self._sides(segment), *self._codes(segment)]
                ids.append(special("</img>"))
            else:
                check_range(segment, words.text.size, "text tokens")
                ids += [special("<txt>"), *(words.text.start + each for each in segment)]
                ids.append(special("</txt>"))
        return one_space([*ids, special("<eos>")])

    def read(self, sequence: TokenSequence) -> list[Text | np.ndarray]:
        """The document of such ids."""
        words = self.vocabulary
        reader = Reader(sequence)
        document: list[Text | np.ndarray] = []
        while not reader.take(words.special("<eos>")):
            if reader.take(words.special("<txt>")):
                ids = reader.until(words.special("</txt>"))
                tokens = [each - words.text.start for each in ids]
                check_range(tokens, words.text.size, "text tokens")
                document.append(tokens)
            else:
                reader.expect(words.special("<img>"))
                document.append(self._image(reader.until(words.special("</img>"))))
        reader.expect_end()
        return document

    def _sides(self, codes: np.ndarray) -> list[int]:
        if not self.vocabulary.has("side"):
            return []
        sides = self.vocabulary.range_of("side")
        check_range([side - 1 for side in codes.shape], sides.size, "codes in a row or column")
        return [sides.start + side - 1 for side in codes.shape]

    def _codes(self, codes: np.ndarray) -> list[int]:
        held = self.vocabulary.image
        if held.grid is not None and codes.shape != held.grid:
            message = f"an image has {codes.shape} codes; the vocabulary says {held.grid}"
            raise ValueError(message)
        flat = to_sequence(codes, held).tolist()
        check_range(flat, held.size, "codes")
        return [held.start + code for code in flat]

    def _image(self, ids: list[int]) -> np.ndarray:
        held, grid = self.vocabulary.image, self.vocabulary.image.grid
        if self.vocabulary.has("side"):
            first = self.vocabulary.range_of("side").start
            rows, columns = (each - first + 1 for each in ids[:2])
            grid, ids = (rows, columns), ids[2:]
        codes = np.array(ids, np.int64) - held.start  # (G,)
        check_range(codes.tolist(), held.size, "codes")
        return to_grid(codes, held) if held.grid else codes.reshape(grid or -1)
