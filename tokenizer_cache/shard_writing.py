"""A shard's two files: the tar that anybody reads, and the index that our loader reads."""

from __future__ import annotations

import io
import math
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from pipeline.engine.fingerprint import hash_file
from pipeline.engine.stage import Row
from pipeline.engine.storage import committing
from tokenizer_cache.manifest import index_name
from tokenizer_cache.shard_index import write_index
from tokenizer_cache.shard_reading import to_sample
from tokenizer_cache.text import TextTokenizer

_CODES = ("codes.npy", "audio.npy")
"""The members that hold codes; a sample has one of them, or none."""


def write_shard(
    path: Path, samples: Mapping[str, Mapping[str, bytes]], text: TextTokenizer, tokenizer: str
) -> Row:
    """Commit a tar and its index.

    Args:
        path: of the tar.
        samples: the files of each sample by extension, by the sample's key.
        text: makes the ids of the index.
        tokenizer: fingerprint of `text`.

    Returns:
        What a row of `samples` says about the shard.
    """
    members = (
        (f"{key}.{extension}", files[extension])
        for key, files in samples.items()
        for extension in sorted(files)
    )
    # Hashed before they go: from a store they would have to be fetched.
    with committing(path) as tar:
        places = write_tar(tar, members)
        row: Row = {
            "shard": path.name,
            "shard_sha256": hash_file(tar),
            "shard_size_bytes": tar.stat().st_size,
        }
    indexed = (
        (to_sample(key, files), _first_code(key, files, places)) for key, files in samples.items()
    )
    with committing(path.with_name(index_name(path.name))) as index:
        write_index(index, indexed, text, tokenizer)
        return {**row, "index_sha256": hash_file(index)}


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> dict[str, int]:
    """Write a tar whose bytes depend on nothing but the members' names, contents and order.

    Returns:
        For each member, the byte at which its content begins.
    """
    places: dict[str, int] = {}
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)  # mtime 0, uid 0, gid 0, mode 0644
            member.size = len(content)
            places[name] = tar.offset + tarfile.BLOCKSIZE
            tar.addfile(member, io.BytesIO(content))
    return places


def size_in_tar(files: Mapping[str, bytes]) -> int:
    """The bytes that a sample takes in a tar: for each file a header, and whole blocks."""
    return sum(
        tarfile.BLOCKSIZE * (1 + math.ceil(len(content) / tarfile.BLOCKSIZE))
        for content in files.values()
    )


def tar_size(members_size: int) -> int:
    """The size of a tar whose members take so many bytes; two empty blocks and a filling end it."""
    end = members_size + 2 * tarfile.BLOCKSIZE
    return math.ceil(end / tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def _first_code(key: str, files: Mapping[str, bytes], places: Mapping[str, int]) -> int | None:
    """The byte of a tar at which the first code of a sample lies; None without codes.

    Args:
        key: the sample's.
        files: the sample's files by extension.
        places: where each member's content begins.
    """
    held = next((name for name in _CODES if name in files), None)
    if held is None:
        return None
    stream = io.BytesIO(files[held])
    np.lib.format.read_magic(stream)
    np.lib.format.read_array_header_1_0(stream)
    return places[f"{key}.{held}"] + stream.tell()
