"""What stops, disturbs or damages a whole run, what the user sees, and what is lost: nothing."""

import os
import re
import resource
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from jobs.cli import call
from pipeline.engine.lock import holding
from pipeline.errors import FAILED, STOPPED, WRONG
from tests.jobs.corpora import faults, files_of, run

pytestmark = pytest.mark.e2e

_PATIENCE_S = 120


def anymix(*arguments, **how):
    """Start the command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "jobs", *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        **how,
    )


def wait_for(folder, pattern, process):
    """Wait until a file is there; a run that ends before has failed."""
    until = time.monotonic() + _PATIENCE_S
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.01)


def said(error, root):
    """A message without the places and numbers of this run."""
    text = " ".join(error.split()).replace(str(root), "CORPUS")
    text = re.sub(r"\.[\w-]+\.parquet\.\w+\.tmp", "FILE", text)
    text = re.sub(r"CORPUS/(tables|shards|models|parts)[\w/.-]*", "CORPUS/FILE", text)
    return re.sub(r"process \d+ on \S+ since \S+", "process N on HOST since TIME", text)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_stops_a_run_cleanly(made, tiny_recipe, load, tmp_path, number, fault):
    root = tmp_path / "corpus"
    how = ("run", tiny_recipe, "--corpus", root, "--set", "run.num_workers=2")
    with anymix(*how) as process:
        wait_for(root, "tables/records/*/*.parquet", process)
        process.send_signal(number)
        sent = time.monotonic()
        error = process.stderr.read()
        assert process.wait() == STOPPED
    assert time.monotonic() - sent < 60
    assert "the same command goes on from there" in error
    run(load(), root)
    assert files_of(root) == files_of(made)
    fault(
        "SIGTERM or Ctrl-C",
        "exit code 3 within 60 s: Stopped. What is committed stays; the same command goes on from "
        "there.",
    )


def test_a_time_limit_stops_a_run_cleanly(made, tiny_recipe, load, tmp_path, fault):
    root = tmp_path / "corpus"
    with anymix("run", tiny_recipe, "--corpus", root, "--stop-after", "4s") as process:
        error = process.stderr.read()
        code = process.wait()
    assert code in {STOPPED, 0}  # a fast machine ends before
    assert ("Stopped." in error) == (code == STOPPED)
    run(load(), root)
    assert files_of(root) == files_of(made)
    assert call(["run", str(tiny_recipe), "--stop-after", "soon"]) == WRONG
    fault("`--stop-after 55m` is over", "exit code 3: Stopped. The same command goes on from there")


@pytest.mark.parametrize("name", ["t" * 90, "Übergang"])
def test_a_long_or_foreign_name_of_the_folder_for_temporary_files_works(
    tiny_recipe, tmp_path, name, fault
):
    """Ray's sockets could not lie there: their paths may have 107 bytes."""
    folder = tmp_path / name
    folder.mkdir()
    how = ("run", tiny_recipe, "--corpus", tmp_path / "c", "--set", "run.num_workers=2")
    with anymix(*how, "--until", "ingest", env=os.environ | {"TMPDIR": str(folder)}) as process:
        error = process.stderr.read()
        assert process.wait() == 0, error
    fault("`TMPDIR` is long, or not ASCII", "nothing: Ray's sockets are below /tmp/ray then")


def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(
    made, tiny_recipe, load, tmp_path, fault
):
    root = tmp_path / "corpus"
    # No file may grow beyond 20 kB: the write fails half-way, as on a full disk.
    limit = (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    process = anymix(
        "run", tiny_recipe, "--corpus", root,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )  # fmt: skip
    error = process.communicate()[1]
    assert process.returncode == FAILED
    assert "the disk is full" in error
    assert "Make room" in error
    run(load(), root)
    assert files_of(root) == files_of(made)
    fault(
        "the disk is full",
        "exit code 1: FILE cannot be written: the disk is full. Make room. What is committed "
        "stays; run the same command again.",
    )


@pytest.fixture
def mounted(tmp_path):
    """A small file system of its own, where this machine lets us mount one."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder],
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_file_system_is_named(mounted, tiny_recipe, load, made):
    root = mounted / "corpus"
    with anymix("run", tiny_recipe, "--corpus", root) as process:
        error = process.stderr.read()
        assert process.wait() == FAILED
    assert "the disk is full" in error
    subprocess.run(["mount", "-o", "remount,size=100m", mounted], check=True)
    run(load(), root)
    assert files_of(root) == files_of(made)


def test_a_read_only_file_system_is_named(mounted, tiny_recipe, fault):
    subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
    with anymix("run", tiny_recipe, "--corpus", mounted / "corpus") as process:
        error = process.stderr.read()
        assert process.wait() == WRONG
    assert "read-only" in error
    fault("the folder is read-only", "exit code 2: FILE cannot be written: its file system is "
          "read-only")  # fmt: skip


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "flipped":  # in a column that the selection reads
        group = pq.read_metadata(path).row_group(0)
        columns = (group.column(number) for number in range(group.num_columns))
        (score,) = (column for column in columns if column.path_in_schema == "clip_score")
        start = score.dictionary_page_offset or score.data_page_offset
        content[start + score.total_compressed_size // 2] ^= 4
    else:
        del content[len(content) // 2 :]
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("how", ["flipped", "cut"])
def test_a_damaged_file_is_found_by_audit_and_by_its_reader_and_made_again(
    corpus, made, tiny_recipe, capsys, how, fault
):
    damage(next((corpus / "tables" / "scores").rglob("*.parquet")), how)
    assert call(["audit", str(corpus)]) == FAILED
    assert "--repair" in capsys.readouterr().out
    command = ["run", str(tiny_recipe), "--corpus", str(corpus)]
    # What reads it again says so, and does not guess.
    assert call([*command, "--set", "select.rules.clip_score.quantile=0.5"]) == FAILED
    error = capsys.readouterr().err
    assert "is damaged" in error
    assert "anymix run RECIPE --repair" in error
    assert call([*command, "--repair"]) == 0
    assert "damaged" in capsys.readouterr().err
    before, after = files_of(made), files_of(corpus)
    assert all(after[name] == before[name] for name in before)
    assert not faults(corpus)
    fault(
        "a committed file is cut short, or a bit of it flips",
        "`anymix audit`: exit code 1 and the file's name; a run that reads it: exit code 1, FILE "
        "is damaged. `anymix run RECIPE --repair` makes it again",
    )


def test_the_second_of_two_runs_stops_and_names_the_first(tiny_recipe, tmp_path, capsys, fault):
    root = tmp_path / "corpus"
    with holding(root):
        assert call(["run", str(tiny_recipe), "--corpus", str(root)]) == WRONG
    error = said(capsys.readouterr().err.removeprefix("error"), root.resolve())
    assert error == (
        "CORPUS is being filled by process N on HOST since TIME Wait for it, or stop it first."
    )
    fault("two runs on one corpus", f"exit code 2 for the second: {error}")


def test_a_dead_holders_lock_is_free(tiny_recipe, tmp_path, fault):
    root = tmp_path / "corpus"
    code = (
        "import os, signal, pathlib\nfrom pipeline.engine.lock import holding\n"
        f"with holding(pathlib.Path({str(root)!r})): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert call(["run", str(tiny_recipe), "--corpus", str(root), "--until", "ingest"]) == 0
    fault("the run that held the corpus is dead", "nothing: its lock is taken over")


def test_a_clock_that_jumps_changes_nothing(made, load, tmp_path, monkeypatch, fault):
    jumps = iter([4e9, 0.0, 1.7e9] * 10_000)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    run(load(), tmp_path / "corpus")
    monkeypatch.undo()
    assert files_of(tmp_path / "corpus") == files_of(made)
    fault("the clock jumps", "nothing: only the times in `events.jsonl` are of the clock")


def test_a_source_that_is_touched_and_not_changed_is_read_once_and_nothing_is_done(tmp_path, load):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.txt").write_text("a text beside no picture")
    from pipeline.sources.shapes import draw

    for index in range(12):
        image, caption = draw(index, size=32, seed=0)
        image.save(pictures / f"{index}.png")
        (pictures / f"{index}.txt").write_text(caption)
    recipe = load(f"sources=[{{kind: folder, path: {pictures}}}]")
    run(recipe, tmp_path / "corpus", until="ingest")
    before = files_of(tmp_path / "corpus")
    for path in pictures.iterdir():
        os.utime(path, (1, 1))
    assert "ingest         nothing has changed" in run(recipe, tmp_path / "corpus", until="ingest")
    changed = {
        name for name, found in files_of(tmp_path / "corpus").items() if before[name] != found
    }
    assert changed <= {"parts.parquet"}
