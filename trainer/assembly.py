"""Rows of ids from documents that are laid out: the only place where codes are read.

R rows, T tokens in a row, D documents, P pieces.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokenizer_cache.code_order import to_sequence
from tokenizer_cache.shard_files import BadShardError, ShardFiles
from tokenizer_cache.vocabulary import Vocabulary
from trainer.layout import Layout, ragged
from trainer.packing import NO_TARGET, Row, next_tokens
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
        """How many damaged pictures were met, by shard; their documents became padding."""
        self._files = files
        self._seq_len = settings.seq_len
        self._skips_bad = settings.loader.bad_shards == "skip"
        self._pad, self._end = vocabulary.special("<pad>"), vocabulary.special("<eos>")
        brackets = (("<txt>", "</txt>"), ("<img>", "</img>"))
        self._open, self._close = np.array(
            [[vocabulary.special(token) for token in pair] for pair in brackets]
        ).T  # (2,) each, by whether a piece is a picture
        self._first_id, self._image = vocabulary.text.start, vocabulary.image
        self._weights = np.array([settings.loss.text, settings.loss.image], np.float32)
        self._condition_weight = np.float32(settings.loss.condition)

    def build(self, layout: Layout, rows: Sequence[np.ndarray]) -> list[Row]:
        """The rows that hold the given documents of a layout, in order.

        Args:
            layout: of all the documents.
            rows: for each row, the numbers of its documents.

        Raises:
            BadShardError: when a shard is damaged and may not be skipped.
        """
        if not rows:
            return []
        placed = _place(layout, rows, self._seq_len)
        shape = (len(rows), self._seq_len)
        tokens = np.full(shape, self._pad, np.int64)
        numbers, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        flat, pieces = tokens.reshape(-1), placed.pieces
        is_image = pieces["is_image"].astype(np.int64)
        opens = (pieces["start"] == 0) & (placed.sizes > 0)
        flat[placed.place[opens]] = self._open[is_image[opens]]
        closes = (pieces["stop"] == pieces["size"] + 2) & (placed.sizes > 0)
        flat[(placed.place + placed.sizes - 1)[closes]] = self._close[is_image[closes]]
        flat[(placed.at + placed.lengths - 1)[placed.has_end]] = self._end
        within = ragged(placed.lengths)
        inside = np.repeat(placed.at, placed.lengths) + within
        positions.reshape(-1)[inside] = within
        numbers.reshape(-1)[inside] = np.repeat(placed.number, placed.lengths)
        for piece in self._fill(flat, pieces, placed.place):
            document = placed.owner[piece]
            lost = slice(placed.at[document], placed.at[document] + placed.lengths[document])
            for values, nothing in ((tokens, self._pad), (numbers, 0), (positions, 0)):
                values.reshape(-1)[lost] = nothing
        targets = next_tokens(tokens, numbers)
        weights = self._token_weights(shape, placed)
        weights[:, :-1] = weights[:, 1:]  # of the next token
        weights[targets == NO_TARGET] = 0
        columns = (tokens, targets, numbers, positions, weights)
        return [
            Row(tokens=ids, targets=after, documents=of, positions=at, weights=counts)
            for ids, after, of, at, counts in zip(*columns, strict=True)
        ]

    def _fill(self, flat: np.ndarray, pieces: np.ndarray, place: np.ndarray) -> list[int]:
        """Put ids and codes between their brackets; returns the pieces whose codes are damaged."""
        # Of the payload, which starts after the opening bracket.
        low = np.maximum(pieces["start"] - 1, 0)
        high = np.minimum(pieces["stop"] - 1, pieces["size"])
        begin = place + (pieces["start"] == 0)
        bad = []
        first_id = self._first_id
        columns = ("shard", "source", "size", "crc32", "is_image")
        known = zip(*(pieces[name].tolist() for name in columns), strict=True)
        spans = zip(low.tolist(), high.tolist(), begin.tolist(), strict=True)
        for number, (of_shard, (lo, hi, to)) in enumerate(zip(known, spans, strict=True)):
            if hi <= lo:
                continue
            shard, source, size, crc32, is_image = of_shard
            target = flat[to : to + hi - lo]
            if not is_image:
                ids = self._files.index(shard).ids[source + lo : source + hi]
                np.add(ids, first_id, out=target, casting="unsafe")
                continue
            try:
                codes = self._files.read(shard, source, size * _BYTES_PER_CODE, crc32)
            except BadShardError as error:
                if not self._skips_bad:
                    raise
                if error.shard not in self.num_bad:
                    _LOG.warning("%s; its damaged samples are left out", error.message)
                self.num_bad[error.shard] += 1
                bad.append(number)
                continue
            sequence = to_sequence(np.frombuffer(codes, "<u2"), self._image)
            np.add(sequence, self._image.start, out=target, casting="unsafe")
        return bad

    def _token_weights(self, shape: tuple[int, int], placed: _Placed) -> np.ndarray:
        """(R, T) float32: what each token counts as a target; `<eos>` counts 1."""
        weights = np.ones(shape, np.float32)
        of_piece = self._weights[placed.pieces["is_image"].astype(np.int64)]
        of_piece[placed.pieces["is_condition"]] *= self._condition_weight
        if (of_piece == 1).all():  # as by default
            return weights
        inside = np.repeat(placed.place, placed.sizes) + ragged(placed.sizes)
        weights.reshape(-1)[inside] = np.repeat(of_piece, placed.sizes)
        return weights


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """Where documents and pieces lie among the R * T tokens of some rows.

    Attributes:
        at: (D,) where each document begins.
        lengths: (D,) its tokens.
        has_end: (D,) whether `<eos>` is its last one.
        number: (D,) 1, 2, … in its row.
        pieces: (P,) `PIECE`.
        owner: (P,) the document of each.
        place: (P,) where it begins.
        sizes: (P,) its tokens.
    """

    at: np.ndarray
    lengths: np.ndarray
    has_end: np.ndarray
    number: np.ndarray
    pieces: np.ndarray
    owner: np.ndarray
    place: np.ndarray
    sizes: np.ndarray


def _place(layout: Layout, rows: Sequence[np.ndarray], seq_len: int) -> _Placed:
    documents = layout.documents[np.concatenate(rows)]
    lengths = documents["length"].astype(np.int64)
    in_row = np.array([len(row) for row in rows])
    before = np.cumsum(lengths) - lengths
    before_row = before[np.cumsum(in_row) - in_row]
    at = np.repeat(np.arange(len(rows)) * seq_len - before_row, in_row) + before
    owner = np.repeat(np.arange(len(documents)), documents["num_pieces"])
    own = documents["first_piece"][owner] + ragged(documents["num_pieces"])
    pieces = layout.pieces[own]
    sizes = (pieces["stop"] - pieces["start"]).astype(np.int64)
    before_piece = np.cumsum(sizes) - sizes
    first = np.cumsum(documents["num_pieces"]) - documents["num_pieces"]
    return _Placed(
        at=at,
        lengths=lengths,
        has_end=documents["has_end"],
        number=ragged(in_row) + 1,
        pieces=pieces,
        owner=owner,
        place=at[owner] + before_piece - before_piece[first][owner],
        sizes=sizes,
    )
