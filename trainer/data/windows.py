"""What comes next in a training, a window at a time: documents of all streams, packed into rows.

A window follows from a few integers and from lengths alone, so that any rank or worker plans the
same one without reading a picture, and a training goes on in the middle of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.data.layout import Layout, joined
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
        layout: the documents.
        streams: (D,) for each document the number of its stream.
        rows: for each row the numbers of its documents, in the order in which they are trained on.
        after: the cursors after the window.
    """

    layout: Layout
    streams: np.ndarray
    rows: Sequence[np.ndarray]
    after: Mapping[str, Cursor]

    def given(self, num_rows: int) -> dict[str, np.ndarray]:
        """The `tokens` and the `samples` of each stream in the first rows."""
        documents = np.concatenate([np.zeros(0, np.int64), *self.rows[:num_rows]])
        chosen, streams = self.layout.documents[documents], self.streams[documents]
        num_streams = len(self.after)
        return {
            "tokens": np.bincount(streams, chosen["length"], num_streams),
            "samples": np.bincount(streams, chosen["opens_sample"], num_streams),
        }


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
        layouts, owners, after = [], [], {}
        for owner, (name, stream) in enumerate(self._streams.items()):
            taken, after[name] = stream.take(cursors[name], self._unit, until[name])
            layouts += taken
            owners += [owner] * sum(len(layout.documents) for layout in taken)
        layout, streams = joined(layouts), np.array(owners, np.int64)
        lengths = layout.documents["length"]
        rows = pack(lengths, seq_len=self._seq_len)
        # Rows are alike when as many of their tokens are of each stream.
        kinds = [
            np.array([lengths[row][streams[row] == owner].sum() for row in rows])
            for owner in range(len(self._streams))
        ]
        order = spread(kinds)
        return Window(
            layout=layout, streams=streams, rows=[rows[row] for row in order], after=after
        )
