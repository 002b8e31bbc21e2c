"""What comes next in a training, a window at a time: documents of all streams, packed into rows.

A window follows from a few integers and from lengths alone, so that any rank or worker plans the
same one without reading a picture, and a run resumes in the middle of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from trainer.data.documents import Document
from trainer.data.mix import quota, shares
from trainer.data.packing import pack, spread
from trainer.data.streams import Cursor, Stream
from trainer.settings import TrainSettings

_ROWS = 256
"""Rows of a window when the mix counts tokens; ours: the last row, which few documents are left
for, costs at most 0.4 % of padding."""
_SAMPLES = 1024
"""Samples of a window when the mix counts samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Packed rows, and where each stream is after them.

    Attributes:
        documents: all of them.
        streams: (D,) for each document the number of its stream.
        rows: for each row the numbers of its documents, in the order in which they are trained on.
        after: the cursors after the window.
    """

    documents: Sequence[Document]
    streams: np.ndarray
    rows: Sequence[np.ndarray]
    after: Mapping[str, Cursor]

    def row(self, number: int) -> list[Document]:
        """The documents of a row."""
        return [self.documents[each] for each in self.rows[number].tolist()]

    def given(self, num_rows: int) -> dict[str, tuple[int, int]]:
        """The tokens and the samples of each stream in the first rows."""
        found = dict.fromkeys(self.after, (0, 0))
        names = list(self.after)
        for number in chain.from_iterable(row.tolist() for row in self.rows[:num_rows]):
            document, name = self.documents[number], names[self.streams[number]]
            num_tokens, num_samples = found[name]
            found[name] = num_tokens + document.length, num_samples + document.opens_sample
        return found


class Planner:
    """Plans window after window."""

    def __init__(self, settings: TrainSettings, streams: Mapping[str, Stream]) -> None:
        """Take the streams of the mix that have samples."""
        self._seq_len = settings.seq_len
        self._unit = settings.mix.unit
        self._weights = {name: getattr(settings.mix, name) for name in streams}
        self._streams = streams

    @property
    def shares(self) -> dict[str, float]:
        """Each stream's share as the mix asks for it."""
        return shares(self._weights)

    def plan(self, number: int, cursors: Mapping[str, Cursor]) -> Window:
        """The window of a number, from where the streams are before it."""
        size = _ROWS * self._seq_len if self._unit == "tokens" else _SAMPLES
        until = quota(self._weights, (number + 1) * size)
        documents: list[Document] = []
        counts, after = [], {}
        for name, stream in self._streams.items():
            taken, after[name] = stream.take(cursors[name], self._unit, until[name])
            documents += taken
            counts.append(len(taken))
        streams = np.repeat(np.arange(len(counts)), counts)
        lengths = np.array([document.length for document in documents], np.int64)
        rows = pack(lengths, seq_len=self._seq_len)
        # Rows are alike when as many of their tokens are of each stream.
        kinds = [
            np.array([lengths[row][streams[row] == owner].sum() for row in rows])
            for owner in range(len(counts))
        ]
        order = spread(kinds)
        return Window(
            documents=documents, streams=streams, rows=[rows[row] for row in order], after=after
        )
