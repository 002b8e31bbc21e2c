"""The documents of one stream in the order of the training, and the shards that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from pipeline.engine.storage import is_local
from pipeline.errors import UserError
from tokenizer_cache.manifest import Manifest
from tokenizer_cache.shard_files import ShardFiles
from trainer.data.layout import Layout, Rules, lay_out
from trainer.data.order import Draws, StreamOrder
from trainer.settings import TrainSettings

_MAX_BLOCK, _MIN_BLOCK = 4096, 64
"""Samples of a stream that are laid out at once: an epoch of a small one. Ours: enough to make the
cost of a few hundred shards small, and tens of milliseconds when a training starts in a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Where a stream is between two windows.

    Attributes:
        block: number of the block that is being read.
        document: the first document of the block that is still to come.
        num_tokens: tokens given so far.
        num_samples: samples given so far.
    """

    block: int = 0
    document: int = 0
    num_tokens: int = 0
    num_samples: int = 0


class Stream:
    """The documents of one stream in the order of the training, without end."""

    def __init__(
        self, settings: TrainSettings, files: ShardFiles, rules: Rules, shards: Mapping[int, int]
    ) -> None:
        """Fix the order.

        Args:
            settings: of the training.
            files: the shards of all streams.
            rules: of the stream.
            shards: number of samples of each of its shards, by their number in `files`.
        """
        self._files = files
        self._rules = rules
        self._shards = np.array(list(shards))
        self._draws = Draws(settings.seed, rules.stream)
        self.order = StreamOrder(
            list(shards.values()),
            seed=settings.seed,
            stream=rules.stream,
            shuffle_shards=settings.loader.shuffle_shards,
        )
        self._block_size = min(max(self.order.num_samples, _MIN_BLOCK), _MAX_BLOCK)
        self.block = lru_cache(2)(self._block)

    def take(self, cursor: Cursor, unit: str, until: int) -> tuple[list[Layout], Cursor]:
        """The documents that come next.

        Args:
            cursor: where the stream is.
            unit: `tokens` or `samples`.
            until: go on while the stream has given less of the unit.

        Returns:
            The documents, and where the stream is after them.
        """
        taken = []
        while True:
            layout = self.block(cursor.block)
            documents = layout.documents[cursor.document :]
            if unit == "tokens":
                given = cursor.num_tokens + np.cumsum(documents["length"]) - documents["length"]
                num = int(np.searchsorted(given, until))
            else:  # a sample's later documents go with its first
                given = cursor.num_samples + np.cumsum(documents["opens_sample"])
                num = int(np.searchsorted(given, until, side="right"))
            chosen = documents[:num]
            taken.append(layout.part(cursor.document, cursor.document + num))
            cursor = replace(
                cursor,
                document=cursor.document + num,
                num_tokens=cursor.num_tokens + int(chosen["length"].sum()),
                num_samples=cursor.num_samples + int(chosen["opens_sample"].sum()),
            )
            if num < len(documents):
                return taken, cursor
            cursor = replace(cursor, block=cursor.block + 1, document=0)

    def _block(self, number: int) -> Layout:
        first, stop = number * self._block_size, (number + 1) * self._block_size
        shards, samples = self.order.samples(first, stop)
        return lay_out(
            self._files,
            self._rules,
            shards=self._shards[shards],
            samples=samples,
            positions=np.arange(first, stop),
            choose=self._draws,
        )


def open_files(settings: TrainSettings, manifest: Manifest) -> ShardFiles:
    """The shards of a manifest, by their number in it.

    Raises:
        UserError: when they lie on a store and what is shuffled together does not fit the cache.
    """
    cache_bytes = round(settings.loader.cache_gb * 1e9)
    if not is_local(manifest.folder):
        needed = 0
        for stream in ("image", "mixed", "audio"):  # a text's ids are in the index
            sizes = sorted(each.size_bytes for each in manifest.shards_of(stream, "train"))
            # Beside those in hand, the next ones are on their way.
            needed += sum(sizes[-2 * (settings.loader.shuffle_shards or len(sizes)) :])
        if needed > cache_bytes:
            raise UserError(
                f"{manifest.folder}: up to {needed / 1e9:.1f} GB of shards are shuffled together, "
                f"and train.loader.cache_gb is {settings.loader.cache_gb}",
                "Set train.loader.shuffle_shards to a smaller number, or give it more room.",
            )
    return ShardFiles(manifest, cache_bytes=cache_bytes)


def rules_of(settings: TrainSettings, manifest: Manifest, stream: str) -> Rules:
    """How the samples of a stream become documents."""
    grid = manifest.vocabulary.image.grid
    if grid is None:
        raise ValueError("the vocabulary's images have no grid")
    return Rules(
        stream=stream,
        grid=grid,
        seq_len=settings.seq_len,
        caption_max_tokens=settings.caption_max_tokens,
        condition_dropout=settings.condition_dropout,
        image_to_text=settings.image_to_text,
    )


def numbers_of(manifest: Manifest, stream: str, split: str) -> dict[int, int]:
    """How many samples each shard of a stream and split has, by the shard's number."""
    return {
        number: shard.num_samples
        for number, shard in enumerate(manifest.shards)
        if (shard.stream, shard.split) == (stream, split)
    }
