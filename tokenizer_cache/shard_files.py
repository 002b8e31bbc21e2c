"""Any sample of a stream's shards by its place: the index is mapped, the tar is read by offset.

Shards on a store are fetched whole into a folder of this machine that all processes share and that
keeps below a size; what was used longest ago goes first. Everything is checked: an index and a
fetched tar against the manifest, what is read from a tar against the checksum in the index.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from pipeline.engine.fingerprint import hash_file
from pipeline.engine.machine_cache import cache_folder
from pipeline.engine.storage import TEMPORARY_SUFFIX, is_local, on_store
from pipeline.errors import UserError
from tokenizer_cache.manifest import Manifest, index_name
from tokenizer_cache.shard_index import ShardIndex

_NUM_OPEN = 256
"""Tars that are open at a time: a process may have 1,024 files."""
_NUM_TRIES = 3
"""How often a file is fetched from a store before it counts as bad."""


class BadShardError(UserError):
    """A shard that is missing, cut short, or not what was written."""

    def __init__(self, shard: str, why: str) -> None:
        super().__init__(
            f"{shard}: {why}",
            "`anymix run RECIPE --repair` writes it anew; "
            "train.loader.bad_shards: skip trains without its bad samples.",
        )
        self.shard = shard


class ShardFiles:
    """The files of a manifest's shards, which are numbered as they stand there."""

    def __init__(self, manifest: Manifest, *, cache_bytes: int) -> None:
        """Look at nothing yet.

        Args:
            manifest: of a folder, local or on a store.
            cache_bytes: how much of a store's shards is kept on this machine.
        """
        self._folder = manifest.folder
        self._shards = manifest.shards
        self._tokenizer = manifest.vocabulary.text.tokenizer
        self._cache = cache_folder() / "shards"
        self._cache_bytes = cache_bytes
        self._indexes: dict[int, ShardIndex] = {}
        self._damaged: set[str] = set()  # on the store, so that fetching again is of no use
        self._open = lru_cache(_NUM_OPEN)(self._open_tar)

    def index(self, shard: int) -> ShardIndex:
        """The index of a shard.

        Raises:
            UserError: when it is not the one that the manifest names, or has the ids of another
                tokenizer. Without it nothing is known of the shard, so that it cannot be skipped.
        """
        found = self._indexes.get(shard)
        if found is None:
            known = self._shards[shard]
            path = self._local(index_name(known.file), known.index_sha256)
            if is_local(self._folder) and _hash(path) != known.index_sha256:
                raise BadShardError(str(path), "it is not the index that the manifest names")
            found = ShardIndex.open(path)
            if found.tokenizer != self._tokenizer:
                raise UserError(
                    f"{self._folder / known.file} has texts of the tokenizer {found.tokenizer}, "
                    f"and the vocabulary is of {self._tokenizer}",
                    "Run `anymix run` again to write the shards anew.",
                )
            self._indexes[shard] = found
        return found

    def read(self, shard: int, start: int, size: int, crc32: int) -> bytes:
        """`size` bytes of a shard from byte `start` on; threads may read at the same time.

        Raises:
            BadShardError: when they are not there, or have another checksum.
        """
        tar = self._open(shard)  # held, so that another thread's opening does not close it
        content = os.pread(tar.descriptor, size, start)
        if zlib.crc32(content) != crc32:
            name = self._folder / self._shards[shard].file
            raise BadShardError(str(name), f"{size} bytes from {start} on are not those written")
        return content

    def read_ahead(self, places: Iterable[tuple[int, int, int]]) -> None:
        """Ask the disk for what is read next, all at once; a store's shards were just written.

        Where nothing is cached, 4,000 pictures came in 0.06 s instead of 0.5 s one by one.

        Args:
            places: shard, first byte and size of each.
        """
        if not is_local(self._folder):
            return
        for shard, start, size in places:
            try:
                tar = self._open(shard)
            except BadShardError:
                continue  # whoever reads it says so
            os.posix_fadvise(tar.descriptor, start, size, os.POSIX_FADV_WILLNEED)

    def fetch(self, shard: int) -> None:
        """Bring a shard's tar to this machine, if it lies on a store."""
        if not is_local(self._folder):
            self._local(self._shards[shard].file, self._shards[shard].sha256)

    def _open_tar(self, shard: int) -> _Tar:
        known = self._shards[shard]
        for last_try in (False, True):
            path = self._local(known.file, known.sha256)
            try:
                tar = _Tar(path)
                break
            except OSError as error:
                # Of the cache, another process may have removed it just now.
                if last_try or is_local(self._folder):
                    raise BadShardError(str(self._folder / known.file), str(error)) from error
        found = os.fstat(tar.descriptor).st_size
        if found != known.size_bytes:
            why = f"it has {found} bytes; the manifest says {known.size_bytes}"
            raise BadShardError(str(self._folder / known.file), why)
        return tar

    def _local(self, name: str, sha256: str) -> Path:
        """The local path of a file of the folder, fetched if need be."""
        if is_local(self._folder):
            return self._folder / name
        path = self._cache / sha256
        if _is_there(path):
            return path
        self._cache.mkdir(parents=True, exist_ok=True)
        with (self._cache / f".{sha256}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process or thread that fetches it
            if _is_there(path):
                return path
            if name in self._damaged or not _fetch(self._folder / name, path, sha256):
                self._damaged.add(name)
                why = "its SHA-256 is not the manifest's"
                raise BadShardError(str(self._folder / name), why)
            _trim(self._cache, self._cache_bytes, keep=path)
        return path


class _Tar:
    """An open file; it is closed when nobody reads it any more."""

    __slots__ = ("descriptor",)

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def _is_there(path: Path) -> bool:
    """Whether a file is in the cache; it then counts as used now."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _fetch(source: Path, path: Path, sha256: str) -> bool:
    """Bring a file from a store; it appears under its name when it is whole and right.

    Returns:
        Whether it came with that SHA-256.

    Raises:
        BadShardError: when it did not come.
    """
    store, key = on_store(source)
    failure: OSError | None = None
    for _ in range(_NUM_TRIES):
        with tempfile.TemporaryDirectory(dir=path.parent, suffix=TEMPORARY_SUFFIX) as folder:
            fetched = Path(folder) / path.name
            try:
                store.get_file(key, str(fetched))
            except OSError as error:
                failure = error
                continue
            failure = None
            if _hash(fetched) == sha256:
                fetched.replace(path)
                return True
    if failure:
        raise BadShardError(str(source), f"it cannot be fetched: {failure}") from failure
    return False


def _trim(folder: Path, max_bytes: int, *, keep: Path) -> None:
    """Remove what was used longest ago until a folder's files fit; open files stay readable."""
    used = {}
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):  # another process was faster
            if entry.is_file():
                state = entry.stat()
                used[entry.path] = (state.st_mtime_ns, state.st_size)
    total = sum(size for _, size in used.values())
    for path, (_, size) in sorted(used.items(), key=lambda item: item[1]):
        if total <= max_bytes:
            return
        if path != str(keep):
            Path(path).unlink(missing_ok=True)
            total -= size


def _hash(path: Path) -> str:
    return hash_file(path) if path.exists() else ""
