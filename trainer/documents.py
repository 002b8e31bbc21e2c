"""From a sample of a shard to the ids that the model reads.

A text is `<txt> ids </txt>`, a picture `<img> codes </img>` in the vocabulary's order, and a
document is its segments and `<eos>`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.engine.fingerprint import unit_interval
from pipeline.errors import UserError
from tokenizer_cache.code_order import to_sequence
from tokenizer_cache.shard_reading import Caption, ImageSegment, Sample, TextSegment
from tokenizer_cache.text import TextTokenizer
from tokenizer_cache.vocabulary import Vocabulary

Choice = Callable[[str], float]
"""A number in [0, 1) for a purpose: draws without a generator, and so without its state."""


def drawn(seed: int, epoch: int, key: str) -> Choice:
    """Choices that depend on the seed, the epoch and the sample's key, and on nothing else."""
    return lambda purpose: unit_interval(str(seed), str(epoch), key, purpose)


def fixed(_purpose: str) -> float:
    """The choice for held-out samples: the first caption, and the condition stays."""
    return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """Turns texts, pictures and samples into ids.

    Attributes:
        vocabulary: the id space of the shards.
        text: the text tokenizer in it.
        seq_len: length of a row, and so of the longest document.
        caption_max_tokens: a caption is cut after that many ids.
    """

    vocabulary: Vocabulary
    text: TextTokenizer
    seq_len: int
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

    def documents(
        self, sample: Sample, choose: Choice, *, condition_dropout: float = 0.0
    ) -> list[list[int]]:
        """The documents of a sample: one, or several of a sample that is longer than a row.

        Args:
            sample: from a shard.
            choose: decides the caption, and whether the condition is dropped.
            condition_dropout: share of image samples whose text is emptied.

        Raises:
            UserError: when a picture has another grid than the vocabulary's, or when a picture
                and its text are longer than a row.
        """
        # The upper end of the interval drops the condition, so that `fixed` never does.
        is_dropped = sample.stream == "image" and choose("condition") >= 1 - condition_dropout
        units: list[list[int]] = [[]]
        for number, segment in enumerate(sample.segments):
            before = sample.segments[number - 1] if number else None
            # A text stays with the picture that it follows; anything else of a document may part.
            follows = isinstance(segment, TextSegment) and isinstance(before, ImageSegment)
            if sample.stream == "mixed" and before is not None and not follows:
                units.append([])
            match segment:
                case ImageSegment():
                    self._check_grid(sample, segment)
                    units[-1] += self.image_segment(segment.codes)
                case TextSegment() if is_dropped:
                    units[-1] += self.text_segment("")
                case TextSegment():
                    text = _by_weight(segment.captions, choose(f"caption-{number}")).text
                    is_prose = sample.stream == "text"
                    units[-1] += self.text_segment(text) if is_prose else self.caption_segment(text)
        if sample.stream == "text":
            ids = [*units[0], self.end]
            return [ids[start : start + self.seq_len] for start in range(0, len(ids), self.seq_len)]
        return self._fit_rows(sample, units)

    def _fit_rows(self, sample: Sample, units: Sequence[list[int]]) -> list[list[int]]:
        """As few documents as hold the units in order, each of at most a row."""
        documents: list[list[int]] = []
        for unit in units:
            length = len(unit) + 1
            if length > self.seq_len:
                raise UserError(
                    f"sample {sample.key} ({sample.stream}) has {length} tokens for one picture "
                    f"with its text; a row holds train.seq_len = {self.seq_len}",
                    "A picture is never cut: raise train.seq_len, or lower "
                    "train.caption_max_tokens.",
                )
            if documents and len(documents[-1]) + length <= self.seq_len:
                documents[-1] += unit
            else:
                documents.append(list(unit))
        return [[*ids, self.end] for ids in documents]

    def _check_grid(self, sample: Sample, segment: ImageSegment) -> None:
        grid = self.vocabulary.image.grid
        if segment.codes.shape != grid:
            raise UserError(
                f"a picture of sample {sample.key} has {segment.codes.shape} codes; "
                f"the vocabulary says {grid}",
                "Run `anymix run` again to write the shards anew.",
            )


def _by_weight(captions: Sequence[Caption], drawn: float) -> Caption:
    """The caption on which a number in [0, 1) falls, each as broad as its weight.

    Without weights all are alike.
    """
    weights = [1.0 if caption.weight is None else caption.weight for caption in captions]
    left = drawn * sum(weights)
    for caption, weight in zip(captions, weights, strict=True):
        left -= weight
        if left < 0:
            return caption
    return captions[-1]
