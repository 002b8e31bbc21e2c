"""From the tars that parts have staged to the numbered ones that the manifest lists.

Workers write into `staged/`, where no reader looks; the shards of before stay as they are until all
parts are done. Then a plan is committed that says which file goes where and what the manifest will
say, and is carried out by renaming. A run that is killed meanwhile leaves the plan, and the next
one carries it out to the same end.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.engine.corpus import MANIFEST_FILE, PartFiles
from pipeline.engine.storage import commit_json, move, read_json, remove, sizes_below
from pipeline.engine.tables import read_table
from tokenizer_cache.manifest import (
    LAYOUT,
    VOCABULARY,
    Manifest,
    Shard,
    find_manifest,
    index_name,
    wids_name,
)
from tokenizer_cache.vocabulary import Vocabulary

_STAGED = "staged"
_PLAN = "publishing.json"
_NUM_READS = 16
"""Files of a table that are read at a time: on a store each takes a while."""
_SHARD_NAME = re.compile(r"(text|image|mixed|audio)(-validation)?-\d{6,}\.(tar|index)")
_WIDS_NAME = re.compile(r"wids-.+\.json")


def staged_folder(folder: Path, part: str, samples: str) -> Path:
    """Where a part's shards lie until they are published.

    Args:
        folder: of the shards.
        part: name of the part.
        samples: fingerprint of its `samples`: what lies there is of that and of nothing else.
    """
    return folder / _STAGED / samples / part


def allot_names(
    wanted: Iterable[tuple[str, str]], previous: Mapping[tuple[str, str], str]
) -> dict[tuple[str, str], str]:
    """The file name of each shard.

    The numbers of a stream and split run from 0 without a gap, as readers that expand
    `image-{000000..000041}.tar` expect. A shard keeps its number, and so does one that is written
    anew; another takes the first free one. Where some have gone, those with the highest numbers
    move into the gaps: an empty tar would leave them in place, but `datasets` fails on a first
    shard without samples.

    Args:
        wanted: part and name among the part's shards of each, in the order of new numbers.
        previous: the file names of the last manifest.
    """
    kinds: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for shard in wanted:
        kinds[shard[1].rpartition("-")[0]].append(shard)
    names: dict[tuple[str, str], str] = {}
    for kind, shards in kinds.items():
        free = dict.fromkeys(f"{kind}-{number:06}.tar" for number in range(len(shards)))
        for shard in shards:
            if previous.get(shard) in free:
                names[shard] = previous[shard]
                del free[previous[shard]]
        rest = iter(free)
        names |= {shard: next(rest) for shard in shards if shard not in names}
    return names


def publish(folder: Path, samples: Collection[Path], vocabulary: Vocabulary, *, state: str) -> None:
    """Publish the shards of some parts, and remove all others.

    Args:
        folder: where the shards lie.
        samples: the committed files of the `samples` table, one per part, named by it. Those that
            the last manifest names already are not read again; the shards of the others are staged.
        vocabulary: what the codes in the shards belong to.
        state: fingerprint of the table.
    """
    last = find_manifest(folder)
    listed = _by_part(last.shards if last else ())
    unlisted = [path for path in samples if _part_of(path) not in listed]
    with ThreadPoolExecutor(_NUM_READS) as pool:
        staged = dict(zip(unlisted, pool.map(_staged_shards, unlisted), strict=True))
    shards = [
        shard for path in samples for shard in staged.get(path) or listed.get(_part_of(path), [])
    ]
    before = (*last.shards, *last.withdrawn) if last else ()
    previous = {(each.part, each.name): each.file for each in before}
    names = allot_names([(each.part, each.name) for each in shards], previous)
    moves: dict[str, str] = {}
    numbered: list[Shard] = []
    for shard in shards:
        file = names[shard.part, shard.name]
        numbered.append(replace(shard, file=file))
        if shard.file != file:
            moves[shard.file] = file
            moves[index_name(shard.file)] = index_name(file)
    manifest = Manifest(
        folder=folder,
        vocabulary=vocabulary,
        shards=tuple(sorted(numbered, key=lambda shard: shard.file)),
        samples=state,
    )
    plan = {"moves": moves, "manifest": manifest.to_json(), "vocabulary": vocabulary.to_json()}
    commit_json(folder / _PLAN, plan)
    finish_publishing(folder)


def finish_publishing(folder: Path) -> None:
    """Carry out the plan that lies in a folder of shards, if one does.

    The manifest never names a file that is about to move or to be replaced, and is written when
    every file that it names is there. What it does not name is removed after that.
    """
    if not (folder / _PLAN).exists():
        return
    plan = read_json(folder / _PLAN)
    moves, manifest = plan["moves"], plan["manifest"]
    shards = [Shard(**shard) for shard in manifest["shards"]]
    last = find_manifest(folder)
    if last is None or last.to_json() != manifest:
        before = last.shards if last else ()
        touched = {*moves, *moves.values()}
        parts = {shard.part for shard in before if shard.file in touched}
        _withdraw(last, [shard for shard in before if shard.part in parts])
        move([(folder / source, folder / target) for source, target in moves.items()])
        commit_json(folder / VOCABULARY, plan["vocabulary"])
        _list(folder, shards, manifest)
    _remove_all_but(folder, shards)
    (folder / _PLAN).unlink()


def unwritten(folder: Path, samples: PartFiles) -> set[str]:
    """The parts whose committed `samples` name shards that are neither published nor staged."""
    if (folder / _PLAN).exists():
        return set()
    manifest = find_manifest(folder)
    if manifest is not None and manifest.samples == samples.fingerprint():
        return set()
    listed = _by_part(manifest.shards if manifest else ())
    waiting = sizes_below(folder / _STAGED)
    parts = sorted(samples.committed())
    unlisted = [part for part in parts if (part, samples.prints[part]) not in listed]
    with ThreadPoolExecutor(_NUM_READS) as pool:
        named = pool.map(_staged_shards, [samples[part] for part in unlisted])
        return {
            part
            for part, shards in zip(unlisted, named, strict=True)
            if not all(_is_waiting(shard, waiting) for shard in shards)
        }


def withdraw(folder: Path, samples: Mapping[str, str]) -> None:
    """Take parts out of a folder's manifest, if it names them: their shards are no good.

    Args:
        folder: where the shards lie.
        samples: for each part the fingerprint of its `samples`; shards of another are left alone.
    """
    last = find_manifest(folder)
    shards = last.shards if last else ()
    _withdraw(last, [each for each in shards if samples.get(each.part) == each.samples])


def discard(folder: Path, parts: Collection[str]) -> None:
    """Take parts out of a folder of shards for good: off the manifest first, then their tars.

    What is staged goes, too: a killed run may have left it with anything. A folder that an earlier
    version wrote goes as a whole, since nothing reads it any more.
    """
    path = folder / MANIFEST_FILE
    if path.exists() and read_json(path).get("layout") != LAYOUT:
        remove(folder)
        return
    finish_publishing(folder)
    last = find_manifest(folder)
    shards = last.shards if last else ()
    _withdraw(last, [shard for shard in shards if shard.part in parts])
    _remove_all_but(folder, [shard for shard in shards if shard.part not in parts])


def _by_part(shards: Iterable[Shard]) -> dict[tuple[str, str], list[Shard]]:
    """Shards by their part and the fingerprint of its `samples`."""
    found: dict[tuple[str, str], list[Shard]] = defaultdict(list)
    for shard in shards:
        found[shard.part, shard.samples].append(shard)
    return found


def _part_of(samples: Path) -> tuple[str, str]:
    """The part that a file of the `samples` table is of, and its fingerprint."""
    return samples.stem, samples.parent.name


def _is_waiting(shard: Shard, waiting: Mapping[str, int]) -> bool:
    """Whether a staged shard is there, by the sizes of what is staged."""
    tar = str(Path(shard.file).relative_to(_STAGED))
    return waiting.get(tar) == shard.size_bytes and index_name(tar) in waiting


def _withdraw(manifest: Manifest | None, shards: Collection[Shard]) -> None:
    """Publish a manifest without some of its shards, which are all that it names of their parts."""
    if manifest is not None and shards:
        gone = set(shards)
        kept = tuple(each for each in manifest.shards if each not in gone)
        left = replace(manifest, shards=kept, samples="", withdrawn=(*manifest.withdrawn, *shards))
        _list(left.folder, kept, left.to_json())


def _list(folder: Path, shards: Collection[Shard], manifest: Mapping[str, Any]) -> None:
    """Commit the lists of shards that other readers take, and last the manifest itself."""
    lists: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for shard in shards:
        lists[wids_name(shard.stream, shard.split)].append(
            {"url": shard.file, "nsamples": shard.num_samples, "filesize": shard.size_bytes}
        )
    for name, listed in lists.items():
        value = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": listed}
        commit_json(folder / name, value)
    for path in list(folder.iterdir()):
        if _WIDS_NAME.fullmatch(path.name) and path.name not in lists:
            path.unlink()
    commit_json(folder / MANIFEST_FILE, manifest)


def _remove_all_but(folder: Path, shards: Collection[Shard]) -> None:
    """Remove what belongs to no shard of these: tars, indexes, and what is staged."""
    named = {name for shard in shards for name in (shard.file, index_name(shard.file))}
    for path in list(folder.iterdir()):
        if _SHARD_NAME.fullmatch(path.name) and path.name not in named:
            path.unlink()
    with suppress(OSError):  # a worker that was given up still writes there
        remove(folder / _STAGED)


def _staged_shards(samples: Path) -> list[Shard]:
    """The shards that one part of the `samples` table names, in its order, each where it waits."""
    columns = ["shard", "stream", "split", "shard_sha256", "shard_size_bytes", "index_sha256"]
    groups = read_table(samples, columns).group_by(columns, use_threads=False)
    part, print_ = _part_of(samples)
    place = staged_folder(Path(), part, print_)
    return [
        Shard(
            file=str(place / row["shard"]),
            part=part,
            name=row["shard"],
            samples=print_,
            stream=row["stream"],
            split=row["split"],
            num_samples=row["count_all"],
            size_bytes=row["shard_size_bytes"],
            sha256=row["shard_sha256"],
            index_sha256=row["index_sha256"],
        )
        for row in groups.aggregate([([], "count_all")]).to_pylist()
    ]
