"""From a text or a picture in hand to the ids that the model reads, as `layout` lays them out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokenizer_cache.code_order import to_sequence
from tokenizer_cache.text import TextTokenizer
from tokenizer_cache.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """Turns texts and pictures into ids.

    Attributes:
        vocabulary: the id space of the shards.
        text: the text tokenizer in it.
        caption_max_tokens: a caption is cut after that many ids.
    """

    vocabulary: Vocabulary
    text: TextTokenizer
    caption_max_tokens: int

    @property
    def end(self) -> int:
        """The id that ends a document."""
        return self.vocabulary.special("<eos>")

    def text_segment(self, text: str, *, max_tokens: int | None = None) -> list[int]:
        """`<txt>`, the first `max_tokens` ids of `text`, `</txt>`."""
        start = self.vocabulary.text.start
        ids = [start + token for token in self.text.encode(text)[:max_tokens]]
        return [self.vocabulary.special("<txt>"), *ids, self.vocabulary.special("</txt>")]

    def caption_segment(self, text: str) -> list[int]:
        """The segment of a text that stands beside a picture."""
        return self.text_segment(text, max_tokens=self.caption_max_tokens)

    def image_segment(self, codes: np.ndarray) -> list[int]:
        """`<img>`, the ids of (h, w) codes in the vocabulary's order, `</img>`."""
        held = self.vocabulary.image
        ids = (to_sequence(codes, held).astype(np.int64) + held.start).tolist()
        return [self.vocabulary.special("<img>"), *ids, self.vocabulary.special("</img>")]
