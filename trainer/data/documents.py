"""From a sample to documents that each fit a row, by their lengths and before anything is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from trainer.data.samples import Sample
from trainer.data.sequence import Segment, Writer
from trainer.data.tasks import Chooser, Draw

_BRACKETS = 2
"""Tokens around the ids of a text."""


class Document(NamedTuple):
    """What one row holds of a sample.

    Attributes:
        shard: the sample's shard.
        number: its number there.
        task: what is learnt from it.
        segments: what the document is made of.
        length: its tokens.
        ends: whether `<eos>` is the last of them.
        opens_sample: whether it is the first of its sample.
    """

    shard: int
    number: int
    task: str
    segments: Sequence[Segment]
    length: int
    ends: bool
    opens_sample: bool


def documents_of(
    sample: Sample, chooser: Chooser, draw: Draw, *, writer: Writer, seq_len: int
) -> list[Document]:
    """The documents of a sample.

    Several where a text or many pictures are longer than a row; none where a picture or a sound is
    with its text.

    Args:
        sample: the sample.
        chooser: draws what is learnt from it.
        draw: its numbers.
        writer: knows how many tokens segments are.
        seq_len: length of a row.
    """
    task, segments = chooser.segments(sample, draw)
    documents: list[Document] = []
    for own in _cut(segments, task, writer, seq_len - 1):
        ends = not own[-1].is_cut
        length = writer.length(own) + ends
        if length > seq_len:
            return []
        opens = not documents
        documents.append(Document(sample.shard, sample.number, task, own, length, ends, opens))
    return documents


def _cut(
    segments: list[Segment], task: str, writer: Writer, room: int
) -> Iterator[Sequence[Segment]]:
    """The segments of each document; only texts, and what lies between pictures, may be cut."""
    if writer.length(segments) <= room or task not in ("text_alone", "interleaved"):
        yield segments
        return
    held: list[Segment] = []
    for unit in _units(segments, writer, room):
        if held and writer.length([*held, *unit]) > room:
            yield held
            held = []
        held += unit
    yield held


def _units(segments: Sequence[Segment], writer: Writer, room: int) -> Iterator[list[Segment]]:
    """What stays together: a picture with the text that follows it, as far as both fit a row."""
    unit: list[Segment] = []
    used = 0
    for each in segments:
        if each.modality != "text":
            if unit:
                yield unit
            unit, used = [each], writer.length([each])
            continue
        start = 0
        while start < each.size:
            free = room - used - _BRACKETS
            if free > 0:
                unit.append(each.part(start, start + free))
                start += free
            yield unit
            unit, used = [], 0
    if unit:
        yield unit
