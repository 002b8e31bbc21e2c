"""The loader on a store: fsspec's in the memory of this process, and a server that speaks S3."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.engine.storage import on_store, to_path
from pipeline.errors import UserError
from tests.trainer.conftest import Squares
from tokenizer_cache.manifest import Manifest
from tokenizer_cache.shard_files import ShardFiles
from trainer.data.loader import Loader
from trainer.settings import LoaderSettings, TrainSettings

SETTINGS = TrainSettings(seq_len=96, caption_max_tokens=16)


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.e2e)])
def stored(
    squares: Squares,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Manifest:
    """The squares on a store, beside an empty cache."""
    monkeypatch.setenv("ANYMIX_CACHE", str(tmp_path / "cache"))
    if request.param == "s3":
        folder = request.getfixturevalue("store").path(tmp_path.name)
    else:
        folder = to_path(f"memory://{tmp_path.name}")
    folder.mkdir(parents=True)
    for path in squares.shards.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return replace(squares.manifest, folder=folder)


def cached(tmp_path: Path) -> int:
    return sum(path.stat().st_size for path in (tmp_path / "cache/shards").iterdir())


def rows(settings: TrainSettings, manifest: Manifest) -> list[list[int]]:
    return [row.tokens.tolist() for row in Loader(settings, manifest).next_rows(300)]


def test_shards_on_a_store_give_the_rows_of_local_ones(squares: Squares, stored: Manifest) -> None:
    assert rows(SETTINGS, stored) == rows(SETTINGS, squares.manifest)


def test_the_cache_keeps_below_its_size_and_what_is_gone_is_fetched_again(
    stored: Manifest, tmp_path: Path
) -> None:
    sizes = [shard.size_bytes for shard in stored.shards]
    files = ShardFiles(stored, cache_bytes=max(sizes) * 2)
    for _ in range(2):
        for number in range(len(sizes)):
            files.fetch(number)
            assert cached(tmp_path) <= max(sizes) * 2
            assert files.index(number).key(0)


def test_processes_of_a_machine_fetch_a_shard_once(
    stored: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    both = threading.Barrier(2)
    store, _ = on_store(stored.folder)
    get_file = store.get_file

    def waiting(key: str, path: str) -> None:
        fetched.append(key)
        with suppress(threading.BrokenBarrierError):  # nobody else fetches at the same time
            both.wait(timeout=0.3)
        get_file(key, path)

    monkeypatch.setattr(store, "get_file", waiting)
    # Locks are of open files, so that threads stand for processes.
    ranks = [ShardFiles(stored, cache_bytes=10**9) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda files: files.fetch(0), ranks))
    assert len(fetched) == 1


def test_a_shard_that_another_process_removes_from_the_cache_is_fetched_again(
    stored: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = next(n for n, shard in enumerate(stored.shards) if shard.stream == "image")
    files = ShardFiles(stored, cache_bytes=10**9)
    files.fetch(number)
    index = files.index(number)
    utime, removed = os.utime, []

    def removing(path: Path) -> None:
        utime(path)
        if not removed:
            removed.append(path)
            path.unlink()

    monkeypatch.setattr(os, "utime", removing)
    place = int(index.first_segment[1]) - 1
    assert files.read(number, int(index.at[place]), 32, int(index.crc32[place]))
    assert removed


def test_what_does_not_fit_the_cache_is_refused_before_the_training(
    squares: Squares, stored: Manifest
) -> None:
    small = LoaderSettings(cache_gb=0.0002)
    with pytest.raises(UserError, match=r"train\.loader\.cache_gb is 0.0002"):
        Loader(SETTINGS.model_copy(update={"loader": small}), stored)
    fits = SETTINGS.model_copy(update={"loader": LoaderSettings(cache_gb=0.0004, shuffle_shards=1)})
    local = SETTINGS.model_copy(update={"loader": LoaderSettings(shuffle_shards=1)})
    assert rows(fits, stored) == rows(local, squares.manifest)


def test_a_shard_that_comes_damaged_from_a_store_is_named(stored: Manifest) -> None:
    (stored.folder / "image-000001.tar").write_bytes(b"cut short")
    with pytest.raises(UserError, match=r"image-000001\.tar: its SHA-256 is not the manifest's"):
        rows(SETTINGS, stored)


def test_a_shard_that_is_damaged_on_the_store_is_skipped_and_not_fetched_for_every_sample(
    stored: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stored.folder / "image-000001.tar").write_bytes(b"cut short")
    fetched: list[str] = []
    store, _ = on_store(stored.folder)
    get_file = store.get_file

    def recording(key: str, path: str) -> None:
        fetched.append(key)
        get_file(key, path)

    monkeypatch.setattr(store, "get_file", recording)
    skips = SETTINGS.model_copy(update={"loader": LoaderSettings(bad_shards="skip", num_threads=1)})
    loader = Loader(skips, stored)
    loader.next_rows(300)
    (counted,) = loader.num_bad.values()
    assert counted > 24
    assert sum("image-000001.tar" in key for key in fetched) == 3
