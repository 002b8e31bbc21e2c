"""One id space for text, image and audio tokens.

Special tokens come first, in a block with room to grow; then one range per tokenizer. A new
tokenizer is appended, so that no id ever moves and a trained model's embeddings keep their meaning.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.storage import read_json

SPECIAL_TOKENS = (
    "<pad>",
    "<eos>",
    "<txt>",
    "</txt>",
    "<img>",
    "</img>",
    "<aud>",
    "</aud>",
    "<row>",
    "<negative>",
    "<style>",
)
"""In the order of their ids. New ones are appended; none is moved or taken out."""

NUM_RESERVED = 32
"""Ids kept for special tokens, used or not."""

SPECIAL = "special"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerDescription:
    """What the vocabulary must know of a tokenizer.

    Attributes:
        modality: `text`, `image` or `audio`.
        num_tokens: its ids run from 0 to `num_tokens` - 1.
        fingerprint: hash of the weights or merges that give an id its meaning.
        grid: height and width of an image's code grid; None for text.
    """

    modality: str
    num_tokens: int
    fingerprint: str
    grid: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRange:
    """The ids of one tokenizer: token `i` of the tokenizer is id `start + i` of the vocabulary.

    Attributes:
        modality: `special`, `text`, `image` or `audio`.
        start: first id.
        size: number of ids.
        tokenizer: fingerprint of the tokenizer; empty for the special tokens.
        grid: height and width of the code grid, for images.
        order: the order in which a grid's codes are read; `raster` is row by row.
    """

    modality: str
    start: int
    size: int
    tokenizer: str = ""
    grid: tuple[int, int] | None = None
    order: str | None = None

    @property
    def stop(self) -> int:
        """The first id after the range."""
        return self.start + self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """All ids of a corpus, as ranges without gaps that start at 0."""

    special_tokens: tuple[str, ...]
    ranges: tuple[TokenRange, ...]

    @property
    def size(self) -> int:
        """Number of ids, reserved ones included."""
        return self.ranges[-1].stop

    @property
    def fingerprint(self) -> str:
        """Changes when any id changes its meaning."""
        return fingerprint(vocabulary=self.to_json())

    @property
    def text(self) -> TokenRange:
        """The ids of the text tokenizer."""
        return self.range_of("text")

    @property
    def image(self) -> TokenRange:
        """The ids of the image codes."""
        return self.range_of("image")

    def special(self, token: str) -> int:
        """The id of a special token such as `<img>`.

        Raises:
            ValueError: when the vocabulary has no such token.
        """
        return self.special_tokens.index(token)

    def range_of(self, modality: str) -> TokenRange:
        """The ids of a modality.

        Raises:
            ValueError: when the vocabulary has no such modality.
        """
        for token_range in self.ranges:
            if token_range.modality == modality:
                return token_range
        message = f"the vocabulary has no {modality} tokens"
        raise ValueError(message)

    def modality_of(self, token_id: int) -> str:
        """The modality that an id belongs to.

        Raises:
            ValueError: when the id is outside the vocabulary.
        """
        if not 0 <= token_id < self.size:
            message = f"id {token_id} is outside the vocabulary of {self.size}"
            raise ValueError(message)
        starts = [token_range.start for token_range in self.ranges]
        return self.ranges[bisect_right(starts, token_id) - 1].modality

    def append(self, tokenizer: TokenizerDescription) -> Self:
        """The vocabulary with one more tokenizer after the last id; no other id moves.

        Raises:
            ValueError: when the vocabulary has tokens of this modality already.
        """
        if any(known.modality == tokenizer.modality for known in self.ranges):
            message = f"the vocabulary has {tokenizer.modality} tokens already"
            raise ValueError(message)
        added = TokenRange(
            modality=tokenizer.modality,
            start=self.size,
            size=tokenizer.num_tokens,
            tokenizer=tokenizer.fingerprint,
            grid=tokenizer.grid,
            order="raster" if tokenizer.grid else None,
        )
        return replace(self, ranges=(*self.ranges, added))

    def to_json(self) -> dict[str, Any]:
        """The vocabulary as JSON; `from_json` gives it back."""
        return {
            "size": self.size,
            "special_tokens": list(self.special_tokens),
            "ranges": [
                {**asdict(known), "grid": list(known.grid) if known.grid else None}
                for known in self.ranges
            ],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The vocabulary that `to_json` wrote."""
        ranges = [
            TokenRange(**{**known, "grid": tuple(known["grid"]) if known["grid"] else None})
            for known in value["ranges"]
        ]
        return cls(special_tokens=tuple(value["special_tokens"]), ranges=tuple(ranges))


def build_vocabulary(text: TokenizerDescription, image: TokenizerDescription) -> Vocabulary:
    """The vocabulary of a text and an image tokenizer: special tokens, text ids, image codes."""
    specials = TokenRange(modality=SPECIAL, start=0, size=NUM_RESERVED)
    empty = Vocabulary(special_tokens=SPECIAL_TOKENS, ranges=(specials,))
    return empty.append(text).append(image)


def read_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary in a `vocabulary.json`."""
    return Vocabulary.from_json(read_json(path))
