"""The documents of one stream in the order of the training, and the shards that they come from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from pipeline.engine.storage import is_local
from pipeline.errors import UserError
from tokenizer_cache.manifest import Manifest
from tokenizer_cache.shard_files import ShardFiles
from tokenizer_cache.vocabulary import Vocabulary
from trainer.data.documents import Document, documents_of
from trainer.data.order import Draws, StreamOrder
from trainer.data.samples import read_sample
from trainer.data.sequence import Writer
from trainer.data.tasks import Chooser, Draw
from trainer.settings import TrainSettings

_MAX_BLOCK, _MIN_BLOCK = 4096, 64
"""Samples whose places in the shards are computed at once: an epoch of a small stream, as each
epoch begins with permutations."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Where a stream is between two windows.

    Attributes:
        sample: position of the next sample, or of the one that is given in part.
        document: how many documents of that one are given.
        num_tokens: tokens given so far.
        num_left_out: samples so far that fit no row.
    """

    sample: int = 0
    document: int = 0
    num_tokens: int = 0
    num_left_out: int = 0

    @property
    def num_samples(self) -> int:
        """Samples given so far, the last perhaps in part."""
        return self.sample - self.num_left_out + (self.document > 0)


class Stream:
    """The documents of one stream in the order of the training, without end."""

    def __init__(
        self,
        settings: TrainSettings,
        stream: str,
        shards: Mapping[int, int],
        documents: Callable[[int, int, Draw], list[Document]],
    ) -> None:
        """Fix the order.

        Args:
            settings: of the training.
            stream: its name.
            shards: number of samples of each of its shards, by the shard's number.
            documents: those of a sample, from `document_maker`.
        """
        self.order = StreamOrder(
            list(shards.values()),
            seed=settings.seed,
            stream=stream,
            shuffle_shards=settings.loader.shuffle_shards,
        )
        self._name = stream
        self._seq_len = settings.seq_len
        self._shards = np.array(list(shards))
        self._draws = Draws(settings.seed, stream)
        self._documents = documents
        self._block_size = min(max(self.order.num_samples, _MIN_BLOCK), _MAX_BLOCK)
        self._block = lru_cache(2)(self._places_of_block)
        self._has_warned = False

    def take(self, cursor: Cursor, unit: str, until: int) -> tuple[list[Document], Cursor]:
        """The documents that come next.

        Args:
            cursor: where the stream is.
            unit: `tokens` or `samples`.
            until: take more while the stream has given less of the unit; where samples count, all
                documents of the last one.

        Returns:
            The documents, and where the stream is after them.

        Raises:
            UserError: when a whole epoch has no sample that fits a row.
        """
        taken: list[Document] = []
        while True:
            documents = self._at(cursor.sample)
            for number in range(cursor.document, len(documents)):
                is_enough = cursor.num_tokens >= until
                if unit == "samples":
                    is_enough = number == 0 and cursor.num_samples >= until
                if is_enough:
                    return taken, cursor
                taken.append(documents[number])
                num_tokens = cursor.num_tokens + documents[number].length
                cursor = replace(cursor, document=number + 1, num_tokens=num_tokens)
            left_out = cursor.num_left_out + (not documents)
            if not documents:
                self._warn(cursor)
            cursor = replace(cursor, sample=cursor.sample + 1, document=0, num_left_out=left_out)

    def _at(self, position: int) -> list[Document]:
        block, place = divmod(position, self._block_size)
        shards, numbers, seeds = self._block(block)
        return self._documents(shards[place], numbers[place], self._draws.of(seeds[place]))

    def _places_of_block(self, number: int) -> tuple[list[int], list[int], list[int]]:
        """Shard, number in it and seed of each of the block's samples."""
        positions = np.arange(number * self._block_size, (number + 1) * self._block_size)
        shards, samples = self.order.samples(int(positions[0]), int(positions[-1]) + 1)
        seeds = self._draws.seeds(positions)
        return self._shards[shards].tolist(), samples.tolist(), seeds.tolist()

    def _warn(self, cursor: Cursor) -> None:
        """Say once that samples are left out; an epoch of nothing else is an error."""
        if cursor.num_left_out + 1 >= self.order.num_samples and cursor.num_tokens == 0:
            raise UserError(
                f"no sample of the stream {self._name} fits a row of train.seq_len = "
                f"{self._seq_len} tokens",
                "A picture or a sound is never cut: raise train.seq_len, or lower "
                "train.caption_max_tokens or ingest.max_sound_s.",
            )
        if not self._has_warned:
            self._has_warned = True
            _LOG.warning(
                "samples of the stream %s are longer than train.seq_len = %d tokens and are left "
                "out; `left_out` in metrics.jsonl counts them",
                self._name,
                self._seq_len,
            )


def document_maker(
    settings: TrainSettings, files: ShardFiles, vocabulary: Vocabulary, stream: str, writer: Writer
) -> Callable[[int, int, Draw], list[Document]]:
    """What gives the documents of a sample of a stream: of its shard, its number and its draws."""
    chooser = Chooser(settings, stream)
    coded = "audio" if stream == "audio" else "image"
    grid = vocabulary.image.grid if vocabulary.has("image") else None

    def documents(shard: int, number: int, draw: Draw) -> list[Document]:
        sample = read_sample(files.index(shard), shard, number, coded=coded, grid=grid)
        return documents_of(sample, chooser, draw, writer=writer, seq_len=settings.seq_len)

    return documents


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
            # Besides those that are read, the next ones are on their way.
            needed += sum(sizes[-2 * (settings.loader.shuffle_shards or len(sizes)) :])
        if needed > cache_bytes:
            raise UserError(
                f"{manifest.folder}: up to {needed / 1e9:.1f} GB of shards are shuffled together, "
                f"and train.loader.cache_gb is {settings.loader.cache_gb}",
                "Set train.loader.shuffle_shards to a smaller number, or give it more room.",
            )
    return ShardFiles(manifest, cache_bytes=cache_bytes)


def numbers_of(manifest: Manifest, stream: str, split: str) -> dict[int, int]:
    """How many samples each shard of a stream and split has, by the shard's number."""
    return {
        number: shard.num_samples
        for number, shard in enumerate(manifest.shards)
        if (shard.stream, shard.split) == (stream, split)
    }
