import errno
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from pipeline.engine.machine_cache import local_copy
from pipeline.engine.storage import (
    commit_bytes,
    commit_json,
    committing,
    committing_folder,
    creating,
    read_json,
    read_json_lines,
)


def test_a_commit_replaces_the_whole_file(tmp_path):
    path = tmp_path / "deep" / "file"
    commit_bytes(path, b"a long first content")
    commit_bytes(path, b"short")
    assert path.read_bytes() == b"short"


def test_a_failed_commit_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    commit_bytes(path, b"old")
    with pytest.raises(RuntimeError), committing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_reader_never_sees_a_file_before_it_is_whole(tmp_path):
    path = tmp_path / "file"
    with committing(path) as temporary:
        temporary.write_bytes(b"half")
        assert not path.exists()
    assert path.exists()


def test_two_writers_of_one_file_do_not_share_a_half_written_one(tmp_path):
    path = tmp_path / "file"
    with committing(path) as first, committing(path) as second:
        first.write_bytes(b"one")
        second.write_bytes(b"another")
    assert path.read_bytes() == b"one"


@pytest.fixture(params=["local", "store"])
def place(request, tmp_path):
    return tmp_path if request.param == "local" else request.getfixturevalue("store").path("place")


def test_of_two_writers_of_one_file_the_first_one_wins(place):
    path = place / "deep" / "file"
    with creating(path) as late, creating(path) as early:
        early.write_bytes(b"one")
        late.write_bytes(b"another")
    with creating(path) as later:
        later.write_bytes(b"a third")
    assert path.read_bytes() == b"one"
    assert [found.name for found in path.parent.iterdir()] == ["file"]


def test_a_failed_creation_leaves_nothing(place):
    path = place / "file"
    with pytest.raises(RuntimeError), creating(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert not path.exists()


@pytest.mark.parametrize("there", [False, True])
def test_where_there_are_no_hard_links_a_file_is_created_all_the_same(tmp_path, monkeypatch, there):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    path = tmp_path / "file"
    if there:
        path.write_bytes(b"one")
    with creating(path) as temporary:
        temporary.write_bytes(b"another")
    assert path.read_bytes() == (b"one" if there else b"another")


def test_a_folder_that_is_whole_stays_and_one_that_is_not_is_replaced(place):
    folder = place / "models" / "vq"
    for content in ("one", "another"):
        with committing_folder(folder, last="model.json") as temporary:
            (temporary / "model.json").write_text(content)
    assert (folder / "model.json").read_text() == "one"
    (folder / "model.json").unlink()
    with committing_folder(folder, last="model.json") as temporary:
        (temporary / "model.json").write_text("another")
    assert (folder / "model.json").read_text() == "another"


def test_a_folder_is_committed_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "models" / "vq"
    with committing_folder(folder) as temporary:
        (temporary / "weights").write_bytes(b"1")
    with pytest.raises(RuntimeError), committing_folder(folder) as temporary:
        (temporary / "other").write_bytes(b"2")
        raise RuntimeError
    assert [path.name for path in folder.iterdir()] == ["weights"]
    assert [path.name for path in folder.parent.iterdir()] == ["vq"]


def test_processes_that_replace_one_folder_do_not_end_each_other(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom pipeline.engine.storage import *\n"
        "for number in range(300):\n"
        "    with committing_folder(Path(sys.argv[1])) as made:\n"
        "        (made / 'a').write_text('whole')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "folder")]
    writers = [subprocess.Popen(command) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "a"]


def test_json_keeps_other_scripts_readable(tmp_path):
    commit_json(tmp_path / "a.json", {"name": "Äpfel 🍎"})
    assert read_json(tmp_path / "a.json") == {"name": "Äpfel 🍎"}
    assert "🍎" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_a_line_that_was_cut_short_hides_no_later_ones(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"n": 1}\n{"n": 2{"n": 3}\n{"n": 4}\n{"n"')
    assert read_json_lines(path) == [{"n": 1}, {"n": 4}]


def test_workers_of_a_machine_that_want_a_folder_of_a_store_fetch_it_once(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYMIX_CACHE", str(tmp_path))
    folder = UPath("memory://bucket/models/vq")
    for name in ("a.json", "deep/b.bin"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    together = threading.Barrier(3)
    fetched = []
    get = MemoryFileSystem.get_file

    def get_file(store, name, *arguments, **options):
        fetched.append(name)
        with suppress(threading.BrokenBarrierError):
            together.wait(0.2)  # where three of them fetch, they do it at a time
        return get(store, name, *arguments, **options)

    monkeypatch.setattr(MemoryFileSystem, "get_file", get_file)
    with ThreadPoolExecutor(3) as pool:
        copies = set(pool.map(local_copy, [folder] * 3))
    assert len(fetched) == 2
    (copy,) = copies
    assert (copy / "deep" / "b.bin").read_bytes() == b"deep/b.bin"
