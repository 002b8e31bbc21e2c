import errno
import traceback
from pathlib import Path

import pytest

from pipeline.engine import storage
from pipeline.engine.faults import as_user_error, brief
from pipeline.engine.schemas import DUPLICATES
from pipeline.engine.storage import read_json_lines
from pipeline.engine.tables import DamagedFile, read_table, write_table


def cut(content):
    return content[:-10]


def empty(content):
    return content[:0]


def flip(content):
    return content[:40] + bytes([content[40] ^ 1]) + content[41:]


def test_a_full_disk_is_said_and_what_to_do():
    found = as_user_error(OSError(errno.ENOSPC, "No space left on device", "/corpus/part"))
    assert found.message.startswith("/corpus/part cannot be written: the disk is full")
    assert "run the same command again" in found.hint
    assert found.exit_code == 1


def test_a_file_that_cannot_be_written_has_its_own_name(tmp_path, monkeypatch):
    def read_only(path, *_):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(storage, "flush", read_only)
    with pytest.raises(OSError, match="Read-only") as stopped:
        storage.commit_text(tmp_path / "README.md", "words")
    assert as_user_error(stopped.value).message == (
        f"{tmp_path}/README.md cannot be written: its file system is read-only"
    )


def test_a_fault_of_the_program_stays_one():
    assert as_user_error(ValueError("a bug")) is None


@pytest.mark.parametrize("damage", [cut, empty, flip])
def test_a_damaged_table_is_named_with_its_remedy(tmp_path, damage):
    path = tmp_path / "part.parquet"
    row = dict.fromkeys(DUPLICATES.names, "b") | {"distance": 0, "threshold": 0}
    write_table(path, [row | {"record_id": "a" * 50}], DUPLICATES)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DamagedFile, match=r"part\.parquet is damaged") as raised:
        read_table(path)
    assert raised.value.hint.endswith("anymix run RECIPE --repair")


def raised(function):
    try:
        function()
    except Exception:  # noqa: BLE001 - whatever it raises
        return traceback.format_exc()
    raise AssertionError


def test_a_traceback_is_told_by_what_was_raised_and_where_in_our_code():
    def fails():
        try:
            read_json_lines(Path("/proc/self/mem"))
        except OSError as error:
            error.add_note("while it was tried")
            raise

    told = brief(f"3 tries; the last: {raised(fails)}")
    assert told.startswith("3 tries; the last: OSError: [Errno 5] Input/output error while it was")
    assert "pipeline/engine/storage.py:" in told
    assert "\n" not in told


def test_a_message_of_many_lines_is_told_whole_and_a_text_without_a_traceback_as_it_is():
    def fails():
        message = "1 error\nfield\n  Input should be a number"
        raise ValueError(message)

    assert brief(raised(fails)) == "ValueError: 1 error field Input should be a number"
    assert brief("the disk is full") == "the disk is full"


def test_what_ray_says_around_a_traceback_is_left_out():
    said = (
        "The actor died because of an error raised in its creation task, ray::MapWorker.__init__() "
        '(pid=1)\n  File "python/ray/_raylet.pyx", line 2198, in ray._raylet.execute_task\n'
        f'  File "{Path(storage.__file__)}", line 12, in load\n    return json.loads(text)\n'
        "ImportError: no module named x\n"
    )
    assert brief(said) == f"ImportError: no module named x ({storage.__file__}:12)"
