"""Rows of ids from documents that are laid out: the only place where codes are read.

T tokens in a row, L tokens in a document.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from tokenizer_cache.code_order import to_sequence
from tokenizer_cache.shard_files import BadShardError, ShardFiles
from tokenizer_cache.vocabulary import Vocabulary
from trainer.data.layout import MODALITIES, TEXT, Layout, ragged
from trainer.data.packing import Row, add_document, empty_row
from trainer.settings import TrainSettings

_BYTES_PER_CODE = 2

_LOG = logging.getLogger(__name__)


class RowBuilder:
    """Fills rows with what their documents say, from shards that are read by offset."""

    def __init__(self, settings: TrainSettings, files: ShardFiles, vocabulary: Vocabulary) -> None:
        """Read nothing yet.

        Args:
            settings: of the training.
            files: the shards that the documents' pieces are numbered by.
            vocabulary: of the shards.
        """
        self.num_bad: Counter[str] = Counter()
        """How many documents had damaged codes, by shard; they became padding."""
        self._files = files
        self._seq_len = settings.seq_len
        self._skips_bad = settings.loader.bad_shards == "skip"
        self._pad, self._end = vocabulary.special("<pad>"), vocabulary.special("<eos>")
        # By the kind of a piece; the last also by whether it is a condition.
        self._open = [vocabulary.special(token) for token in ("<txt>", "<img>", "<aud>")]
        self._close = [vocabulary.special(token) for token in ("</txt>", "</img>", "</aud>")]
        self._ranges = {
            kind: vocabulary.range_of(modality)
            for kind, modality in enumerate(MODALITIES)
            if vocabulary.has(modality)
        }
        # Numpy's, as a code of 16 bits plus an int of Python has 16 bits, and wraps around.
        self._first = {kind: np.int64(ids.start) for kind, ids in self._ranges.items()}
        weights = [getattr(settings.loss, modality) for modality in MODALITIES]
        self._weights = [[weight, weight * settings.loss.condition] for weight in weights]

    def build(self, layout: Layout, rows: Sequence[np.ndarray]) -> list[Row]:
        """The rows that hold the given documents of a layout, in order.

        Args:
            layout: of all the documents.
            rows: for each row, the numbers of its documents.

        Raises:
            BadShardError: when a shard is damaged and may not be skipped.
        """
        documents = _documents(layout, np.concatenate(rows)) if rows else []
        self._files.read_ahead(
            (piece.shard, piece.source, piece.size * _BYTES_PER_CODE)
            for document in documents
            for piece in document.pieces
            if piece.kind != TEXT
        )
        remaining = iter(documents)
        return [self._row(islice(remaining, len(row))) for row in rows]

    def _row(self, documents: Iterable[_Document]) -> Row:
        row = empty_row(seq_len=self._seq_len, pad=self._pad)
        start = 0
        for number, document in enumerate(documents, 1):
            stop = start + document.length
            first = document.pieces[0]
            row.samples.append((first.shard, first.number))
            try:
                self._write(row.tokens[start:stop], document)
            except BadShardError as error:
                self._leave_out(error)
                row.tokens[start:stop] = self._pad
            else:
                add_document(row, number, start, stop)
                self._weigh(row.weights[start : stop - 1], document)
            start = stop
        return row

    def _write(self, tokens: np.ndarray, document: _Document) -> None:
        """Fill (L,) `tokens` with those of a document."""
        at = 0
        for piece in document.pieces:
            end = at + piece.stop - piece.start
            opens, closes = piece.start == 0, piece.stop == piece.size + 2 and at < end
            if opens:
                tokens[at] = self._open[piece.kind]
            if closes:
                tokens[end - 1] = self._close[piece.kind]
            # Of its ids, which come after the opening bracket.
            low, high = max(piece.start - 1, 0), min(piece.stop - 1, piece.size)
            if low < high:
                ids = self._ids(piece)[low:high]
                np.add(ids, self._first[piece.kind], out=tokens[at + opens : end - closes])
            at = end
        if document.has_end:
            tokens[at] = self._end

    def _ids(self, piece: _Piece) -> np.ndarray:
        """(size,) uint16 or uint32 ids of a text or codes of another piece, as its tokenizer's."""
        if piece.kind == TEXT:
            return self._files.index(piece.shard).ids[piece.source : piece.source + piece.size]
        size = piece.size * _BYTES_PER_CODE
        codes = self._files.read(piece.shard, piece.source, size, piece.crc32)
        return to_sequence(np.frombuffer(codes, "<u2"), self._ranges[piece.kind])

    def _weigh(self, weights: np.ndarray, document: _Document) -> None:
        """Set (L - 1,) `weights` of a document's targets, that is of all tokens but its first."""
        at = -1
        for piece in document.pieces:
            end = at + piece.stop - piece.start
            weight = self._weights[piece.kind][piece.is_condition]
            if weight != 1:  # all count 1 already
                weights[max(at, 0) : max(end, 0)] = weight
            at = end

    def _leave_out(self, error: BadShardError) -> None:
        """Count a document with damaged codes, if the settings allow it."""
        if not self._skips_bad:
            raise error
        if error.shard not in self.num_bad:
            _LOG.warning("%s; its damaged samples are left out", error.message)
        self.num_bad[error.shard] += 1


class _Piece(NamedTuple):
    """What `layout.PIECE` says, as far as it is needed to write a piece."""

    shard: int
    number: int
    kind: int
    is_condition: bool
    source: int
    size: int
    crc32: int
    start: int
    stop: int


class _Document(NamedTuple):
    length: int
    has_end: bool
    pieces: list[_Piece]


def _documents(layout: Layout, numbers: np.ndarray) -> list[_Document]:
    """Some documents of a layout as Python's numbers, which are faster than numpy's one by one."""
    documents = layout.documents[numbers]
    counts = documents["num_pieces"]
    pieces = layout.pieces[np.repeat(documents["first_piece"], counts) + ragged(counts)]
    known = map(_Piece, *(pieces[name].tolist() for name in _Piece._fields))
    columns = (documents[name].tolist() for name in ("length", "has_end", "num_pieces"))
    return [
        _Document(length, has_end, list(islice(known, num_pieces)))
        for length, has_end, num_pieces in zip(*columns, strict=True)
    ]
