"""Which shards a corpus has: the manifest, and the names of the files that it lists."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.engine.corpus import MANIFEST_FILE
from pipeline.engine.storage import read_json
from pipeline.errors import UserError
from tokenizer_cache.vocabulary import Vocabulary, read_vocabulary

VOCABULARY = "vocabulary.json"

LAYOUT = 5
"""Raised when shards become other files for readers; they then lie in another folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One tar: samples of one part, stream and split.

    Attributes:
        file: its name in the folder.
        part: the part whose samples it holds.
        name: its name among the shards of that part.
        samples: fingerprint of the part's `samples` table, committed when the tar was written.
        stream: `text`, `image`, `mixed` or `audio`.
        split: `train` or `validation`.
        num_samples: how many samples it holds.
        size_bytes: its size.
        sha256: the SHA-256 of its bytes.
        index_sha256: the SHA-256 of its index's bytes.
    """

    file: str
    part: str
    name: str
    samples: str
    stream: str
    split: str
    num_samples: int
    size_bytes: int
    sha256: str
    index_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A folder of shards and the vocabulary that its codes belong to.

    Attributes:
        folder: where they lie.
        vocabulary: what their codes mean.
        shards: all of them, by name.
        samples: fingerprint of the `samples` table that describes them; empty while some are taken
            out.
        withdrawn: those taken out, whose numbers wait for them.
    """

    folder: Path
    vocabulary: Vocabulary
    shards: tuple[Shard, ...]
    samples: str
    withdrawn: tuple[Shard, ...] = ()

    def paths(self, stream: str, split: str) -> list[Path]:
        """The tars of a stream and a split."""
        return [self.folder / shard.file for shard in self.shards_of(stream, split)]

    def num_samples(self, stream: str, split: str) -> int:
        """How many samples a stream has in a split."""
        return sum(shard.num_samples for shard in self.shards_of(stream, split))

    def shards_of(self, stream: str, split: str) -> list[Shard]:
        """The shards of a stream (`text`, `image`, …) and a split (`train`, `validation`)."""
        return [each for each in self.shards if (each.stream, each.split) == (stream, split)]

    def to_json(self) -> dict[str, Any]:
        """What `manifest.json` says."""
        return {
            "vocabulary": self.vocabulary.fingerprint,
            "tokenizers": {
                known.modality: known.tokenizer
                for known in self.vocabulary.ranges
                if known.tokenizer
            },
            "layout": LAYOUT,
            "samples": self.samples,
            "shards": [asdict(shard) for shard in self.shards],
            "withdrawn": [asdict(shard) for shard in self.withdrawn],
        }


def shard_name(stream: str, split: str, number: int) -> str:
    """The file name of a shard, such as `image-000003.tar` or `image-validation-000000.tar`."""
    return f"{stream}{'' if split == 'train' else f'-{split}'}-{number:06}.tar"


def wids_name(stream: str, split: str) -> str:
    """The file that lists the shards of a stream and split for `wids.ShardListDataset`."""
    return f"wids-{stream}{'' if split == 'train' else f'-{split}'}.json"


def index_name(shard: str) -> str:
    """The file name of a shard's index: `image-000003.index` of `image-000003.tar`."""
    return shard.removesuffix(".tar") + ".index"


def find_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder of shards; None before one has been published."""
    return open_manifest(folder) if (folder / MANIFEST_FILE).exists() else None


def open_manifest(folder: Path, vocabulary_fingerprint: str | None = None) -> Manifest:
    """The manifest of a folder of shards.

    Args:
        folder: where `manifest.json` lies.
        vocabulary_fingerprint: what the reader was made for; None takes any.

    Raises:
        UserError: when there is no manifest, when its vocabulary is not the one beside it, or when
            another one is asked for.
    """
    path = folder / MANIFEST_FILE
    if not path.exists():
        raise UserError(f"{folder} holds no {MANIFEST_FILE}", "Run `anymix run` to the end first.")
    value = read_json(path)
    vocabulary = read_vocabulary(folder / VOCABULARY)
    if value["vocabulary"] != vocabulary.fingerprint:
        raise UserError(
            f"{folder / VOCABULARY} has the fingerprint {vocabulary.fingerprint}, "
            f"and the shards were written with {value['vocabulary']}",
            "Run `anymix run` again to write the shards anew.",
        )
    if vocabulary_fingerprint not in (None, vocabulary.fingerprint):
        raise UserError(
            f"the shards in {folder} have the vocabulary {vocabulary.fingerprint}, "
            f"and {vocabulary_fingerprint} is wanted",
            "The same ids mean other tokens there: take the corpus that the model was trained on.",
        )
    return Manifest(
        folder=folder,
        vocabulary=vocabulary,
        shards=tuple(Shard(**shard) for shard in value["shards"]),
        samples=value["samples"],
        withdrawn=tuple(Shard(**shard) for shard in value["withdrawn"]),
    )
