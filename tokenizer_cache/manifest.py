"""Which shards a corpus has: the numbers that parts hold, and the manifest that publishes them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.engine.corpus import MANIFEST_FILE
from pipeline.engine.fingerprint import hash_file
from pipeline.engine.storage import commit_json, read_json
from pipeline.engine.tables import read_table
from pipeline.errors import UserError
from tokenizer_cache.vocabulary import Vocabulary, read_vocabulary

VOCABULARY = "vocabulary.json"

LAYOUT = 4
"""Raised when shards become other files for readers; they then lie in another folder."""

_SHARD_NAME = re.compile(r"(text|image|mixed|audio)(-validation)?-(\d{6,})\.(tar|index)")
_WIDS_NAME = re.compile(r"wids-.+\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One tar: the samples of one part, stream and split.

    Attributes:
        file: its name in the folder.
        part: the part that it holds.
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
        selection: fingerprint of the selection that they hold; empty while they are rewritten.
    """

    folder: Path
    vocabulary: Vocabulary
    shards: tuple[Shard, ...]
    selection: str

    def paths(self, stream: str, split: str) -> list[Path]:
        """The tars of a stream and a split."""
        return [self.folder / shard.file for shard in self.shards_of(stream, split)]

    def num_samples(self, stream: str, split: str) -> int:
        """How many samples a stream has in a split."""
        return sum(shard.num_samples for shard in self.shards_of(stream, split))

    def shards_of(self, stream: str, split: str) -> list[Shard]:
        """The shards of a stream (`text`, `image`, …) and a split (`train`, `validation`)."""
        return [each for each in self.shards if (each.stream, each.split) == (stream, split)]

    def names(self) -> dict[str, dict[str, str]]:
        """The shards that each part holds, as `allot_names` takes them for the next run."""
        names: dict[str, dict[str, str]] = {}
        for shard in self.shards:
            names.setdefault(shard.part, {})[f"{shard.stream}/{shard.split}"] = shard.file
        return names

    def contents(self) -> dict[str, tuple[dict[str, str], str]]:
        """For each part with shards, their names and the fingerprint of their `samples`.

        A part's tars are overwritten when its texts change, while its earlier `samples` stay
        committed. Where the two differ, the tars are of another run and must be written again.
        """
        prints = {shard.part: shard.samples for shard in self.shards}
        return {part: (names, prints[part]) for part, names in self.names().items()}


def shard_name(stream: str, split: str, number: int) -> str:
    """The file name of a shard, such as `image-000003.tar` or `image-validation-000000.tar`."""
    return f"{stream}{'' if split == 'train' else f'-{split}'}-{number:06}.tar"


def wids_name(stream: str, split: str) -> str:
    """The file that lists the shards of a stream and split for `wids.ShardListDataset`."""
    return f"wids-{stream}{'' if split == 'train' else f'-{split}'}.json"


def index_name(shard: str) -> str:
    """The file name of a shard's index: `image-000003.index` of `image-000003.tar`."""
    return shard.removesuffix(".tar") + ".index"


def allot_names(
    previous: Mapping[str, Mapping[str, str]], counts: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, str]]:
    """The shards that each part is to write.

    The numbers of a stream and split run from 0 without a gap, as readers that expand
    `image-{000000..000041}.tar` expect. A part keeps its number; a new part takes the first free
    one. Where a part has gone, the parts with the highest numbers move into the gaps: an empty tar
    would leave them in place, but `datasets` fails on a first shard without samples.

    Args:
        previous: for each part, the shards of the last manifest by `stream/split`.
        counts: for each part, the samples or records that it has by `stream/split`.

    Returns:
        For each part of `counts`, the shard by `stream/split`; none where it has nothing.
    """
    names: dict[str, dict[str, str]] = {part: {} for part in counts}
    for stream_split in sorted({key for held in counts.values() for key in held}):
        stream, split = stream_split.split("/")
        parts = [part for part, held in counts.items() if held.get(stream_split, 0) > 0]
        wanted = {shard_name(stream, split, number): number for number in range(len(parts))}
        for part in parts:
            name = previous.get(part, {}).get(stream_split)
            if name in wanted:
                names[part][stream_split] = name
                del wanted[name]
        free = iter(wanted)
        for part in parts:
            if stream_split not in names[part]:
                names[part][stream_split] = next(free)
    return names


def write_manifest(
    folder: Path, samples: Iterable[Path], vocabulary: Vocabulary, *, selection: str
) -> Manifest:
    """Publish the shards of a folder, then remove the tars that the manifest does not name.

    The manifest is written last: a reader that finds it finds every file that it names.

    Args:
        folder: where the shards lie.
        samples: the committed files of the `samples` table, one per part, named by it. Those that
            the last manifest names already are not read again.
        vocabulary: what the codes in the shards belong to.
        selection: fingerprint of the selection that they hold.
    """
    last = find_manifest(folder)
    known: dict[tuple[str, str], list[Shard]] = defaultdict(list)
    for shard in last.shards if last else ():
        known[shard.part, shard.samples].append(shard)
    shards = sorted(
        (
            shard
            for path in samples
            for shard in known.get((path.stem, path.parent.name)) or _shards_of(path)
        ),
        key=lambda shard: shard.file,
    )
    manifest = Manifest(
        folder=folder, vocabulary=vocabulary, shards=tuple(shards), selection=selection
    )
    commit_json(folder / VOCABULARY, vocabulary.to_json())
    _publish(manifest)
    _remove_all_but(folder, shards)
    return manifest


def withdraw(folder: Path, parts: Collection[str]) -> None:
    """Take parts out of a folder's manifest, if it has one, before their shards are written anew.

    The manifest then never names a file that is half of an old run and half of a new one, and
    `Manifest.contents` tells for every other part which `samples` its tars belong to.
    """
    manifest = find_manifest(folder)
    if manifest is None:
        return
    kept = tuple(shard for shard in manifest.shards if shard.part not in parts)
    if kept != manifest.shards:
        _publish(replace(manifest, shards=kept, selection=""))


def discard(folder: Path, parts: Collection[str]) -> None:
    """Take parts out of a folder of shards for good: off the manifest first, then their tars.

    Tars that the manifest does not name go, too: a killed run may have left them with anything.
    """
    withdraw(folder, parts)
    manifest = find_manifest(folder)
    _remove_all_but(folder, manifest.shards if manifest else ())


def _publish(manifest: Manifest) -> None:
    """Commit the lists of shards that other readers take, and last the manifest itself."""
    lists: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for shard in manifest.shards:
        lists[wids_name(shard.stream, shard.split)].append(
            {"url": shard.file, "nsamples": shard.num_samples, "filesize": shard.size_bytes}
        )
    for name, shards in lists.items():
        value = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": shards}
        commit_json(manifest.folder / name, value)
    for path in list(manifest.folder.iterdir()):
        if _WIDS_NAME.fullmatch(path.name) and path.name not in lists:
            path.unlink()
    commit_json(manifest.folder / MANIFEST_FILE, _to_json(manifest))


def _remove_all_but(folder: Path, shards: Collection[Shard]) -> None:
    """Remove the tars and indexes of a folder that belong to no shard of these."""
    named = {name for shard in shards for name in (shard.file, index_name(shard.file))}
    for path in list(folder.iterdir()):
        if _SHARD_NAME.fullmatch(path.name) and path.name not in named:
            path.unlink()


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
        selection=value["selection"],
    )


def is_written(folder: Path, samples: Path, names: Mapping[str, str]) -> bool:
    """Whether the tars of a part are whole, and are those that its `samples` describe.

    Args:
        folder: where the shards lie.
        samples: the part's committed file of the `samples` table.
        names: the shards that the part should have, by `stream/split`.
    """
    shards = _shards_of(samples)
    files = [
        pair
        for each in shards
        for pair in ((each.file, each.sha256), (index_name(each.file), each.index_sha256))
    ]
    return {f"{each.stream}/{each.split}": each.file for each in shards} == names and all(
        (folder / name).exists() and hash_file(folder / name) == sha256 for name, sha256 in files
    )


def _shards_of(samples: Path) -> list[Shard]:
    """The shards that one part of the `samples` table names."""
    columns = ["shard", "stream", "split", "shard_sha256", "shard_size_bytes", "index_sha256"]
    groups = read_table(samples, columns).group_by(columns).aggregate([([], "count_all")])
    return [
        Shard(
            file=row["shard"],
            part=samples.stem,
            samples=samples.parent.name,
            stream=row["stream"],
            split=row["split"],
            num_samples=row["count_all"],
            size_bytes=row["shard_size_bytes"],
            sha256=row["shard_sha256"],
            index_sha256=row["index_sha256"],
        )
        for row in groups.to_pylist()
    ]


def _to_json(manifest: Manifest) -> dict[str, Any]:
    return {
        "vocabulary": manifest.vocabulary.fingerprint,
        "tokenizers": {
            known.modality: known.tokenizer
            for known in manifest.vocabulary.ranges
            if known.tokenizer
        },
        "selection": manifest.selection,
        "shards": [asdict(shard) for shard in manifest.shards],
    }
