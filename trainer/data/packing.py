"""Whole documents into rows of one length, with what attention needs to keep them apart.

T tokens in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

NO_TARGET = -100
"""Target of a token that predicts nothing: padding, and the last token of a document."""

_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A packed row.

    Attributes:
        tokens: (T,) int64 ids.
        targets: (T,) int64 ids of the next token of the same document, or `NO_TARGET`.
        documents: (T,) int64; 1, 2, … by document in the row, 0 for padding.
        positions: (T,) int64; from 0 in each document.
        weights: (T,) float32, what each target counts in the loss; 0 where there is none.
        places: (T,) int64, place in the code grid, as `sequence.Written` has them.
        samples: shard, and number in it, of each document's sample.
        tasks: the task that each document is of.
    """

    tokens: np.ndarray
    targets: np.ndarray
    documents: np.ndarray
    positions: np.ndarray
    weights: np.ndarray
    places: np.ndarray
    samples: list[tuple[int, int]] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)


def pack(lengths: np.ndarray, *, seq_len: int) -> list[np.ndarray]:
    """First-fit decreasing: which documents go into each row, by their number.

    The longest go first, each into the first row that has room (Johnson, Near-Optimal Bin Packing
    Algorithms, 1973): at most 11/9 of the fewest rows, and a few per mille more with real lengths.

    Args:
        lengths: (D,) tokens of each document, at most `seq_len`.
        seq_len: length of a row.
    """
    free = np.full(len(lengths), seq_len)
    rows: list[list[int]] = []
    longest_first = np.argsort(-lengths, kind="stable")
    for document, length in zip(
        longest_first.tolist(), lengths[longest_first].tolist(), strict=True
    ):
        # One row more than there are is empty, and so has room.
        row = int((free[: len(rows) + 1] >= length).argmax())
        if row == len(rows):
            rows.append([])
        rows[row].append(document)
        free[row] -= length
    return [np.array(row) for row in rows]


def spread(keys: Sequence[np.ndarray]) -> np.ndarray:
    """An order in which every stretch of rows is like the whole.

    Rows are ranked by `keys`, and the ranks are visited as the multiples of the golden ratio fall
    on the unit interval (Weyl's sequence): packing puts like with like, and a step should not see
    rows of one kind.

    Args:
        keys: (R,) each, the first one counts most.
    """
    ranked = np.lexsort(keys[::-1])
    visits = np.argsort(np.arange(len(ranked)) * _GOLDEN % 1)
    order = np.empty(len(ranked), np.int64)
    order[visits] = ranked
    return order


def build_row(documents: Sequence[Sequence[int] | np.ndarray], *, seq_len: int, pad: int) -> Row:
    """One row that holds `documents` in order, then padding; all targets count alike."""
    row = empty_row(seq_len=seq_len, pad=pad)
    start = 0
    for number, document in enumerate(documents, 1):
        stop = start + len(document)
        row.tokens[start:stop] = document
        add_document(row, number, start, stop)
        start = stop
    return row


def empty_row(*, seq_len: int, pad: int) -> Row:
    """A row of padding."""
    return Row(
        tokens=np.full(seq_len, pad, np.int64),
        targets=np.full(seq_len, NO_TARGET, np.int64),
        documents=np.zeros(seq_len, np.int64),
        positions=np.zeros(seq_len, np.int64),
        weights=np.zeros(seq_len, np.float32),
        places=np.zeros(seq_len, np.int64),
    )


def add_document(row: Row, number: int, start: int, stop: int) -> None:
    """Make what stands in `row.tokens[start:stop]` the row's document of that number."""
    row.documents[start:stop] = number
    row.positions[start:stop] = np.arange(stop - start)
    row.targets[start : stop - 1] = row.tokens[start + 1 : stop]
    row.weights[start : stop - 1] = 1


def unpack(row: Row) -> list[list[int]]:
    """The documents that a row holds, in order."""
    num_documents = int(row.documents.max())
    return [row.tokens[row.documents == n].tolist() for n in range(1, num_documents + 1)]
