"""Rows for training, in an order that the seed decides and a checkpoint can hold.

Each stream runs through its shards again and again, shards and the samples in each shuffled anew
every epoch; the mix says which stream is next; the packer makes rows. Two loaders with the same
settings give the same rows, and one that loads the state of another goes on where that one was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engine.fingerprint import fingerprint
from tokenizer_cache.manifest import Manifest
from tokenizer_cache.shard_reading import Sample, read_shard
from trainer.documents import Encoder, drawn, fixed
from trainer.mix import STREAMS, next_stream, shares
from trainer.packing import Packer, Row, pack
from trainer.settings import TrainSettings

_NUM_OPEN_ROWS = 16
"""Ours: 6.5 % padding with rows of 256 and pictures of 64 codes; 1 leaves 18 %, 64 leave 6.4 %."""


class SampleStream:
    """The training samples of one stream, epoch after epoch, one shard in memory at a time."""

    def __init__(self, shards: list[Path], *, seed: int) -> None:
        """Start at the first epoch.

        Args:
            shards: the tars; together they hold at least one sample.
            seed: decides the order.
        """
        self._shards = shards
        self._seed = seed
        self.epoch, self._shard, self._sample = 0, 0, 0
        self._samples: list[Sample] | None = None

    def __next__(self) -> Sample:
        """The next sample; `epoch` is the one that it belongs to."""
        while True:
            if self._samples is None:
                self._samples = self._read()
            if self._sample < len(self._samples):
                self._sample += 1
                return self._samples[self._sample - 1]
            self._samples, self._sample, self._shard = None, 0, self._shard + 1
            if self._shard == len(self._shards):
                self._shard, self.epoch = 0, self.epoch + 1

    def state_dict(self) -> dict[str, int]:
        """Where the stream is, as JSON."""
        return {"epoch": self.epoch, "shard": self._shard, "sample": self._sample}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to where another stream was."""
        self.epoch, self._shard, self._sample = state["epoch"], state["shard"], state["sample"]
        self._samples = None

    def _read(self) -> list[Sample]:
        order = _shuffle(self._seed, self.epoch).permutation(len(self._shards))
        path = self._shards[order[self._shard]]
        samples = list(read_shard(path))
        return [
            samples[index]
            for index in _shuffle(self._seed, self.epoch, path.name).permutation(len(samples))
        ]


class Loader:
    """Packed rows in the right mix, without end."""

    def __init__(self, settings: TrainSettings, manifest: Manifest, encoder: Encoder) -> None:
        self._settings = settings
        self._encoder = encoder
        wanted = settings.mix.model_dump()
        self._weights = {
            stream: wanted[stream]
            for stream in STREAMS
            if wanted[stream] and manifest.num_samples(stream, "train")
        }
        self._streams = {
            stream: SampleStream(manifest.paths(stream, "train"), seed=settings.seed)
            for stream in self._weights
        }
        self._num_tokens = dict.fromkeys(self._weights, 0)
        # Pieces of a long text wait here for their turn.
        self._waiting: dict[str, list[list[int]]] = {stream: [] for stream in self._weights}
        pad = encoder.vocabulary.special("<pad>")
        self._packer = Packer(settings.seq_len, _NUM_OPEN_ROWS, pad)

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams of the mix that the shards have samples for."""
        return tuple(self._weights)

    def wanted_shares(self) -> dict[str, float]:
        """Each stream's share of the tokens as the mix asks for it."""
        return shares(self._weights)

    def achieved_shares(self) -> dict[str, float]:
        """Each stream's share of the tokens so far."""
        return shares(self._num_tokens)

    def epochs(self) -> dict[str, int]:
        """How often each stream has been read through."""
        return {stream: samples.epoch for stream, samples in self._streams.items()}

    def next_rows(self, num_rows: int) -> list[Row]:
        """The next rows of the training."""
        rows: list[Row] = []
        while len(rows) < num_rows:
            rows += self._packer.add(self._next_document())  # at most one row a document
        return rows

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next rows depend on, as JSON."""
        return {
            "streams": {name: stream.state_dict() for name, stream in self._streams.items()},
            "num_tokens": dict(self._num_tokens),
            "waiting": {name: list(documents) for name, documents in self._waiting.items()},
            "rows": [list(row) for row in self._packer.rows],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the loader of `state` was."""
        for name, stream in self._streams.items():
            stream.load_state_dict(state["streams"][name])
        self._num_tokens = dict(state["num_tokens"])
        self._waiting = {name: list(documents) for name, documents in state["waiting"].items()}
        self._packer.rows = [list(row) for row in state["rows"]]

    def _next_document(self) -> list[int]:
        stream = next_stream(self._weights, self._num_tokens)
        if not self._waiting[stream]:
            sample = next(self._streams[stream])
            choose = drawn(self._settings.seed, self._streams[stream].epoch, sample.key)
            self._waiting[stream] = self._encoder.documents(
                sample, choose, condition_dropout=self._settings.condition_dropout
            )
        document = self._waiting[stream].pop(0)
        self._num_tokens[stream] += len(document)
        return document


def held_out_rows(manifest: Manifest, encoder: Encoder, stream: str, num_rows: int) -> list[Row]:
    """The first rows of a stream's held-out samples, each with its first caption.

    Fewer than `num_rows` where the stream has fewer.
    """
    pad = encoder.vocabulary.special("<pad>")
    documents = (
        document
        for sample in held_out_samples(manifest, stream)
        for document in encoder.documents(sample, fixed)
    )
    rows = pack(documents, seq_len=encoder.seq_len, num_open=_NUM_OPEN_ROWS, pad=pad)
    return list(islice(rows, num_rows))


def held_out_samples(manifest: Manifest, stream: str) -> Iterator[Sample]:
    """The validation samples of a stream, in the order of the shards."""
    for path in manifest.paths(stream, "validation"):
        yield from read_shard(path)


def _shuffle(*what: int | str) -> np.random.Generator:
    return np.random.default_rng(int(fingerprint(what=what), 16))
