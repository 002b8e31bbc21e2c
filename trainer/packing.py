"""Whole documents into rows of one length, with what attention needs to keep them apart.

T tokens in a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

NO_TARGET = -100
"""Target of a token that predicts nothing: padding, and the last token of a document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A packed row.

    Attributes:
        tokens: (T,) int64 ids.
        targets: (T,) int64 ids of the next token of the same document, or `NO_TARGET`.
        documents: (T,) int64; 1, 2, … by document in the row, 0 for padding.
        positions: (T,) int64; from 0 in each document.
    """

    tokens: np.ndarray
    targets: np.ndarray
    documents: np.ndarray
    positions: np.ndarray


@dataclass(slots=True)
class Packer:
    """First fit over a few open rows: a document goes into the first that has room for it.

    When none has, the fullest one is closed and handed out. Memory is bounded by the open rows,
    and the rows depend on nothing but the order of the documents.

    Attributes:
        seq_len: length of a row.
        num_open: how many rows may wait for a document that fits.
        pad: id that fills what is left.
        rows: the open rows, each a list of documents; JSON, so that a checkpoint can hold it.
    """

    seq_len: int
    num_open: int
    pad: int
    rows: list[list[list[int]]] = field(default_factory=list)

    def add(self, document: list[int]) -> Iterator[Row]:
        """Pack one document; gives the row that had to be closed for it, if any.

        Raises:
            ValueError: when the document is longer than a row.
        """
        if len(document) > self.seq_len:
            raise ValueError(f"a document of {len(document)} tokens is longer than {self.seq_len}")
        for row in self.rows:
            if _length(row) + len(document) <= self.seq_len:
                row.append(document)
                return
        if len(self.rows) == self.num_open:
            fullest = max(range(self.num_open), key=lambda index: _length(self.rows[index]))
            yield build_row(self.rows.pop(fullest), seq_len=self.seq_len, pad=self.pad)
        self.rows.append([document])

    def flush(self) -> Iterator[Row]:
        """Hand out all open rows."""
        while self.rows:
            yield build_row(self.rows.pop(0), seq_len=self.seq_len, pad=self.pad)


def pack(documents: Iterable[list[int]], *, seq_len: int, num_open: int, pad: int) -> Iterator[Row]:
    """Rows that hold all `documents`, each exactly once and whole."""
    packer = Packer(seq_len, num_open, pad)
    for document in documents:
        yield from packer.add(document)
    yield from packer.flush()


def build_row(documents: list[list[int]], *, seq_len: int, pad: int) -> Row:
    """One row that holds `documents` in order, then padding."""
    tokens = np.full(seq_len, pad, np.int64)
    targets = np.full(seq_len, NO_TARGET, np.int64)
    numbers = np.zeros(seq_len, np.int64)
    positions = np.zeros(seq_len, np.int64)
    start = 0
    for number, document in enumerate(documents, start=1):
        end = start + len(document)
        tokens[start:end] = document
        targets[start : end - 1] = document[1:]
        numbers[start:end] = number
        positions[start:end] = np.arange(len(document))
        start = end
    return Row(tokens=tokens, targets=targets, documents=numbers, positions=positions)


def unpack(row: Row) -> list[list[int]]:
    """The documents that a row holds, in order."""
    num_documents = int(row.documents.max())
    return [row.tokens[row.documents == n].tolist() for n in range(1, num_documents + 1)]


def _length(row: list[list[int]]) -> int:
    return sum(map(len, row))
