"""From a sample of a shard to the ids that the model reads.

A text is `<txt> ids </txt>`, a picture `<img> codes </img>` row by row, and a document is its
segments and `<eos>`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.engine.fingerprint import unit_interval
from pipeline.errors import UserError
from tokenizer_cache.shard_reading import ImageSegment, Sample, TextSegment
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
        """`<img>`, the ids of (h, w) codes in raster order, `</img>`."""
        ids = (codes.astype(np.int64).ravel() + self.vocabulary.image.start).tolist()
        return [self.vocabulary.special("<img>"), *ids, self.vocabulary.special("</img>")]

    def documents(
        self, sample: Sample, choose: Choice, *, condition_dropout: float = 0.0
    ) -> list[list[int]]:
        """The documents of a sample: one, or the pieces of a text that is longer than a row.

        Args:
            sample: from a shard.
            choose: decides the caption, and whether the condition is dropped.
            condition_dropout: share of image samples whose text is emptied.

        Raises:
            UserError: when a picture has another grid than the vocabulary's, or when the pictures
                of a sample and their texts are longer than a row.
        """
        # The upper end of the interval drops the condition, so that `fixed` never does.
        is_dropped = sample.stream == "image" and choose("condition") >= 1 - condition_dropout
        ids: list[int] = []
        for number, segment in enumerate(sample.segments):
            match segment:
                case ImageSegment():
                    self._check_grid(sample, segment)
                    ids += self.image_segment(segment.codes)
                case TextSegment() if is_dropped:
                    ids += self.text_segment("")
                case TextSegment():
                    index = int(choose(f"caption-{number}") * len(segment.captions))
                    text = segment.captions[index].text
                    is_prose = sample.stream == "text"
                    ids += self.text_segment(text) if is_prose else self.caption_segment(text)
        ids.append(self.end)
        if sample.stream == "text":
            return [ids[start : start + self.seq_len] for start in range(0, len(ids), self.seq_len)]
        if len(ids) > self.seq_len:
            raise UserError(
                f"sample {sample.key} ({sample.stream}) has {len(ids)} tokens; "
                f"a row holds train.seq_len = {self.seq_len}",
                "A picture is never cut: raise train.seq_len, or lower train.caption_max_tokens "
                "or shards.records_per_document.",
            )
        return [ids]

    def _check_grid(self, sample: Sample, segment: ImageSegment) -> None:
        grid = self.vocabulary.image.grid
        if segment.codes.shape != grid:
            raise UserError(
                f"a picture of sample {sample.key} has {segment.codes.shape} codes; "
                f"the vocabulary says {grid}",
                "Run `anymix run` again to write the shards anew.",
            )
