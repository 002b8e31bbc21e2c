"""Rows for training, in an order that the seed decides and a few integers can hold.

The planner says what comes next, window by window; threads fill rows ahead. Two loaders with the
same settings give the same rows, one that loads the state of another goes on where that one was,
and the loaders of several ranks share out the rows that one alone would give.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

from pipeline.engine.storage import is_local
from tokenizer_cache.manifest import Manifest
from trainer.data.documents import Document
from trainer.data.mix import STREAMS, shares
from trainer.data.packing import Row
from trainer.data.rows import RowBuilder, coded_segments
from trainer.data.sequence import Place
from trainer.data.streams import Cursor, Stream, document_maker, numbers_of, open_files
from trainer.data.windows import Planner, Window
from trainer.settings import TrainSettings

_STEPS_AHEAD = 4
"""How many calls' rows are being filled while the model computes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a loader is: a window, how many of its rows are given, the streams before it."""

    window: int
    row: int
    cursors: Mapping[str, Cursor]


class Given(NamedTuple):
    """What a stream has given so far."""

    num_tokens: int
    num_samples: int


class Loader:
    """Packed rows in the right mix, without end."""

    def __init__(
        self, settings: TrainSettings, manifest: Manifest, *, rank: int = 0, num_ranks: int = 1
    ) -> None:
        """Open the shards.

        Args:
            settings: of the training.
            manifest: of the shards.
            rank: which of the ranks this is.
            num_ranks: how many there are; each gives every so-manieth row.

        Raises:
            UserError: when the shards have another tokenizer than their vocabulary, or lie on a
                store and do not fit the cache.
        """
        self._files = open_files(settings, manifest)
        self._builder = RowBuilder(settings, self._files, manifest.vocabulary)
        make = partial(document_maker, settings, self._files, manifest.vocabulary)
        self._streams = {
            name: Stream(settings, name, numbers, make(name, self._builder.writer))
            for name in STREAMS
            if getattr(settings.mix, name) and (numbers := numbers_of(manifest, name, "train"))
        }
        self._planner = Planner(settings, self._streams)
        self._rank, self._num_ranks = rank, num_ranks
        self._fetches = not is_local(manifest.folder)
        self._pool = ThreadPoolExecutor(max_workers=settings.loader.num_threads)
        self._windows: dict[int, Window] = {}
        self._ahead: deque[tuple[int, _Place, Future[list[Row]]]] = deque()
        self._place = _Place(window=0, row=0, cursors={name: Cursor() for name in self._streams})

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams of the mix that the shards have samples for."""
        return tuple(self._streams)

    @property
    def num_bad(self) -> dict[str, int]:
        """How many documents had damaged codes and are left out, by shard."""
        return dict(self._builder.num_bad)

    def wanted_shares(self) -> dict[str, float]:
        """Each stream's share as the mix asks for it, in the mix's unit."""
        return self._planner.shares

    def achieved_shares(self) -> dict[str, dict[str, float]]:
        """Each stream's share of the `tokens` and of the `samples` so far."""
        given = self.given()
        return {
            unit: shares({name: getattr(each, f"num_{unit}") for name, each in given.items()})
            for unit in ("tokens", "samples")
        }

    def epochs(self) -> dict[str, int]:
        """How often each stream has been read through."""
        left_out = {name: cursor.num_left_out for name, cursor in self._place.cursors.items()}
        return {
            name: (given.num_samples + left_out[name]) // self._streams[name].order.num_samples
            for name, given in self.given().items()
        }

    def left_out(self) -> dict[str, int]:
        """How many samples of each stream were longer than a row and are left out, where any was.

        Counted in the windows that are planned, so that what comes next is in it.
        """
        after = self._window(self._place).after
        return {name: cursor.num_left_out for name, cursor in after.items() if cursor.num_left_out}

    def sample_keys(self, rows: Sequence[Row]) -> list[str]:
        """The keys of the samples in some rows, as the shards have them, each once."""
        samples = dict.fromkeys(sample for row in rows for sample in row.samples)
        return [self._files.index(shard).key(number) for shard, number in samples]

    def next_rows(self, num_rows: int) -> list[Row]:
        """This rank's share of the next rows of the training.

        Args:
            num_rows: of all ranks together; a multiple of their number.
        """
        if num_rows % self._num_ranks:
            raise ValueError(f"{num_rows} rows cannot be shared out to {self._num_ranks} ranks")
        if self._ahead and self._ahead[0][0] != num_rows:
            self._ahead.clear()
        while len(self._ahead) < _STEPS_AHEAD:
            place = self._ahead[-1][1] if self._ahead else self._place
            planned, after = self._plan(place, num_rows)
            self._ahead.append((num_rows, after, self._pool.submit(self._builder.build, planned)))
        _, after, rows = self._ahead.popleft()
        given = rows.result()
        self._place = after
        for number in [each for each in self._windows if each < after.window]:
            del self._windows[number]
        return given

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next rows depend on, as JSON: a few integers."""
        cursors = {name: asdict(cursor) for name, cursor in self._place.cursors.items()}
        return {"window": self._place.window, "row": self._place.row, "streams": cursors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the loader of `state` was."""
        cursors = {name: Cursor(**cursor) for name, cursor in state["streams"].items()}
        self._place = _Place(window=state["window"], row=state["row"], cursors=cursors)
        self._ahead.clear()
        self._windows.clear()

    def _plan(self, place: _Place, num_rows: int) -> tuple[list[list[Document]], _Place]:
        """The documents of each of this rank's next rows, and where the loader is after them."""
        rows = []
        first = 0
        while first < num_rows:
            window = self._window(place)
            num = min(num_rows - first, len(window.rows) - place.row)
            rows += [
                window.row(place.row + number)
                for number in range(num)
                if (first + number) % self._num_ranks == self._rank
            ]
            first += num
            place = _Place(window=place.window, row=place.row + num, cursors=place.cursors)
            if place.row == len(window.rows):
                place = _Place(window=place.window + 1, row=0, cursors=window.after)
        return rows, place

    def _window(self, place: _Place) -> Window:
        """The window at a place; from a store, what the next one reads is fetched already."""
        window = self._planned(place.window, place.cursors)
        if self._fetches:
            self._planned(place.window + 1, window.after)
        return window

    def _planned(self, number: int, cursors: Mapping[str, Cursor]) -> Window:
        if number not in self._windows:
            window = self._windows[number] = self._planner.plan(number, cursors)
            if self._fetches:
                coded = (segment.ids for segment in coded_segments(window.documents))
                for shard in sorted({ids.shard for ids in coded if isinstance(ids, Place)}):
                    self._pool.submit(self._files.fetch, shard)
        return self._windows[number]

    def given(self) -> dict[str, Given]:
        """How many tokens and samples each stream has given so far."""
        given = self._window(self._place).given(self._place.row)
        return {
            name: Given(
                num_tokens=cursor.num_tokens + given[name][0],
                num_samples=cursor.num_samples + given[name][1],
            )
            for name, cursor in self._place.cursors.items()
        }
