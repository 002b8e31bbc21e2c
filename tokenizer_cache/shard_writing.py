"""A shard's two files: the tar that anybody reads, and the index that our loader reads."""

from __future__ import annotations

import io
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
    places = write_tar(path, members)
    index = path.with_name(index_name(path.name))
    indexed = (
        (to_sample(key, files), _first_code(files, places.get(f"{key}.codes.npy")))
        for key, files in samples.items()
    )
    write_index(index, indexed, text, tokenizer)
    return {
        "shard": path.name,
        "shard_sha256": hash_file(path),
        "shard_size_bytes": path.stat().st_size,
        "index_sha256": hash_file(index),
    }


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> dict[str, int]:
    """Commit a tar whose bytes depend on nothing but the members' names, contents and order.

    Returns:
        For each member, the byte at which its content begins.
    """
    places: dict[str, int] = {}
    with (
        committing(path) as temporary,
        tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, content in members:
            member = tarfile.TarInfo(name)  # mtime 0, uid 0, gid 0, mode 0644
            member.size = len(content)
            places[name] = tar.offset + tarfile.BLOCKSIZE
            tar.addfile(member, io.BytesIO(content))
    return places


def _first_code(files: Mapping[str, bytes], at: int | None) -> int | None:
    """The byte of a tar at which the first code of a sample lies; None without codes.

    Args:
        files: the sample's files by extension.
        at: where its `codes.npy` begins.
    """
    if at is None:
        return None
    stream = io.BytesIO(files["codes.npy"])
    np.lib.format.read_magic(stream)
    np.lib.format.read_array_header_1_0(stream)
    return at + stream.tell()
