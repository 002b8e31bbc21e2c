"""Rows of tokens from documents: the only place where codes are read.

T tokens in a row.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np

from tokenizer_cache.code_order import to_sequence
from tokenizer_cache.shard_files import BadShardError, ShardFiles
from tokenizer_cache.shard_index import BYTES_PER_CODE
from tokenizer_cache.vocabulary import Vocabulary
from trainer.data.documents import Document
from trainer.data.packing import NO_TARGET, Row, add_document, empty_row
from trainer.data.sequence import Place, Segment, Writer, Written
from trainer.settings import TrainSettings

_LOG = logging.getLogger(__name__)


class RowBuilder:
    """Fills rows with what their documents say, from shards that are read by offset."""

    def __init__(self, settings: TrainSettings, files: ShardFiles, vocabulary: Vocabulary) -> None:
        """Read nothing yet.

        Args:
            settings: of the training.
            files: the shards that the documents' segments are numbered by.
            vocabulary: of the shards.
        """
        self.num_bad: Counter[str] = Counter()
        """How many documents had damaged codes, by shard; they became padding."""
        self.writer = Writer(vocabulary, loss=settings.loss, read=partial(_read, files, vocabulary))
        self._files = files
        self._seq_len = settings.seq_len
        self._skips_bad = settings.loader.bad_shards == "skip"
        self._pad = vocabulary.special("<pad>")

    def build(self, rows: Sequence[Sequence[Document]]) -> list[Row]:
        """The rows that hold these documents.

        Raises:
            BadShardError: when a shard is damaged and may not be skipped.
        """
        self._files.read_ahead(
            (segment.ids.shard, segment.ids.start, segment.size * BYTES_PER_CODE)
            for row in rows
            for segment in coded_segments(row)
            if isinstance(segment.ids, Place)
        )
        return [self._row(row) for row in rows]

    def _row(self, documents: Sequence[Document]) -> Row:
        row = empty_row(seq_len=self._seq_len, pad=self._pad)
        start = 0
        for number, document in enumerate(documents, 1):
            row.samples.append((document.shard, document.number))
            row.tasks.append(document.task)
            try:
                written = self.writer.write(document.segments, ends=document.ends)
            except BadShardError as error:
                self._leave_out(error)
            else:
                put(row, written, number, start)
            start += document.length
        return row

    def _leave_out(self, error: BadShardError) -> None:
        """Count a document with damaged codes, if the settings allow it."""
        if not self._skips_bad:
            raise error
        if error.shard not in self.num_bad:
            _LOG.warning("%s; its damaged samples are left out", error.message)
        self.num_bad[error.shard] += 1


def put(row: Row, written: Written, number: int, start: int) -> None:
    """Make a written document the row's document of a number, from token `start` on."""
    stop = start + len(written.tokens)
    row.tokens[start:stop] = written.tokens
    row.places[start:stop] = written.places
    add_document(row, number, start, stop)
    row.weights[start : stop - 1] = written.weights[1:]
    for token in written.no_targets:
        row.targets[start + token - 1] = NO_TARGET
        row.weights[start + token - 1] = 0


def row_of(written: Written, *, seq_len: int, pad: int) -> Row:
    """A row of one written document."""
    row = empty_row(seq_len=seq_len, pad=pad)
    put(row, written, 1, 0)
    return row


def coded_segments(documents: Iterable[Document]) -> Iterable[Segment]:
    """The segments of some documents that are no texts."""
    return (
        segment
        for document in documents
        for segment in document.segments
        if segment.modality != "text"
    )


def _read(files: ShardFiles, vocabulary: Vocabulary, segment: Segment) -> np.ndarray:
    """(size,) uint16 or uint32 ids of a segment that lies in a shard, as its tokenizer's."""
    place = segment.ids
    assert isinstance(place, Place), "else nothing is to be read"  # noqa: S101
    if segment.modality == "text":
        index = files.index(place.shard)
        ids = index.ids if segment.mark is None else index.variant_ids
        return ids[place.start : place.start + segment.size]
    size = segment.size * BYTES_PER_CODE
    codes = np.frombuffer(files.read(place.shard, place.start, size, place.crc32), "<u2")
    return to_sequence(codes, vocabulary.range_of(segment.modality))
