"""A sample of a shard as what may be drawn of it: texts with their captions, pictures with views.

Nothing is read but the index: a segment knows how long it is and where its ids lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from pipeline.errors import UserError
from tokenizer_cache.shard_index import BYTES_PER_CODE, VARIANT_KINDS, ShardIndex
from trainer.data.sequence import Place, Segment


class Part(NamedTuple):
    """One text in all its wordings, or one picture as a whole and as its crops.

    Attributes:
        options: the segments that may be drawn.
        upto: where the share of the draws of each ends, from 0 to 1.
    """

    options: Sequence[Segment]
    upto: Sequence[float]

    def drawn(self, draw: float) -> Segment:
        """The option that a number in [0, 1) falls on."""
        for option, upto in zip(self.options, self.upto, strict=True):
            if draw < upto:
                return option
        return self.options[-1]


class Sample(NamedTuple):
    """What the index says of a sample.

    Attributes:
        shard: its shard's number.
        number: its own number in the shard.
        parts: texts, pictures and sounds in the order of the shard.
        styles: texts that ask for its picture in another style, marked as such.
        negatives: texts that say what its picture does not show, marked as such.
    """

    shard: int
    number: int
    parts: Sequence[Part]
    styles: Sequence[Segment]
    negatives: Sequence[Segment]


def read_sample(
    index: ShardIndex, shard: int, number: int, *, coded: str, grid: tuple[int, int] | None
) -> Sample:
    """A sample as the index of its shard has it.

    Args:
        index: of the shard.
        shard: its number.
        number: of the sample in it.
        coded: what codes are in its stream, `image` or `audio`.
        grid: rows and columns of every picture's codes; None for any.

    Raises:
        UserError: when a picture has another grid.
    """
    first, stop = index.first_segment[number : number + 2].tolist()
    captions = index.first_caption[first : stop + 1].tolist()
    parts = []
    for place, segment in enumerate(range(first, stop)):
        begin, end = captions[place : place + 2]
        if begin < end:
            ids = index.first_id[begin : end + 1].tolist()
            texts = [
                Segment("text", Place(shard, start), after - start, 0, after - start)
                for start, after in pairwise(ids)
            ]
            parts.append(Part(texts, index.upto[begin:end].tolist()))
        else:
            part = _coded_part(index, shard, segment, coded)
            sides = part.options[0].sides
            if coded == "image" and grid not in (None, sides):
                raise UserError(
                    f"a picture of sample {index.key(number)} has {sides} codes; "
                    f"the vocabulary says {grid}",
                    "Run `anymix run` again to write the shards anew.",
                )
            parts.append(part)
    styles: list[Segment] = []
    negatives: list[Segment] = []
    kinds = {"style": styles, "negative": negatives}
    for variant in range(*index.first_variant[number : number + 2].tolist()):
        kind = VARIANT_KINDS[index.variant_kind[variant]]
        start, after = index.first_variant_id[variant : variant + 2].tolist()
        size = after - start
        kinds[kind].append(Segment("text", Place(shard, start), size, 0, size, mark=f"<{kind}>"))
    return Sample(shard, number, parts, styles, negatives)


def _coded_part(index: ShardIndex, shard: int, segment: int, coded: str) -> Part:
    """A picture and its crops, which lie in the tar one after the other, all alike likely."""
    sides = int(index.rows[segment]), int(index.columns[segment])
    size, at = sides[0] * sides[1], int(index.at[segment])
    checksums = [int(index.crc32[segment])]
    if len(index.crop_crc32):
        crops = slice(*index.first_crop[segment : segment + 2].tolist())
        checksums += index.crop_crc32[crops].tolist()
    places = (
        Place(shard, at + view * size * BYTES_PER_CODE, crc32)
        for view, crc32 in enumerate(checksums)
    )
    views = [Segment(coded, place, size, 0, size, sides=sides) for place in places]
    return Part(views, [(view + 1) / len(views) for view in range(len(views))])
