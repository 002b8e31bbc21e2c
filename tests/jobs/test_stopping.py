"""What signals do to a command, whatever its code makes of them."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest

from pipeline.errors import FAILED, STOPPED

HEAD = """
import atexit, os, signal, subprocess, sys, threading, time
from jobs import stopping

def stop():
    os.kill(os.getpid(), signal.SIGTERM)

def do():
"""
TAIL = """
stopping.finish(do)
"""


def run(body, **how):
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    command = [sys.executable, "-c", HEAD + lines + TAIL]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **how)


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGALRM"])
def test_a_signal_ends_the_command_with_3_and_gives_back_what_it_took(number):
    done = run(
        f"try:\n    os.kill(os.getpid(), signal.{number})\nfinally:\n    print('given back')\n"
    )
    assert (done.returncode, done.stdout) == (STOPPED, "given back\n")
    assert "the same command goes on from there" in done.stderr


@pytest.mark.parametrize(
    "body",
    [
        "try:\n    stop()\nexcept BaseException:\n    raise SystemError('CoreWorker.wait')",
        "try:\n    stop()\nexcept BaseException:\n    sys.exit(15)",
        "try:\n    stop()\nexcept BaseException:\n    raise ImportError('numpy')",
    ],
)
def test_what_a_library_makes_of_a_signal_is_a_stop_all_the_same(body):
    done = run(body)
    assert done.returncode == STOPPED
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "body",
    [
        # Python drops what is raised in a destructor.
        "class Deaf:\n    def __del__(self):\n        stop()\nDeaf()\ntime.sleep(1000)",
        # Native code that does not come back.
        "try:\n    stop()\nexcept BaseException:\n    time.sleep(1000)",
        # A lock that the stop waits for.
        "lock = threading.Lock()\nwith lock:\n    try:\n        stop()\n"
        "    finally:\n        lock.acquire()",
    ],
)
def test_a_command_that_does_not_end_by_itself_is_ended(body):
    assert run(f"stopping._GRACE_S = 0.2\n{body}").returncode == STOPPED


def test_a_second_signal_ends_it_at_once():
    done = run("try:\n    stop()\nfinally:\n    stop()\n    print('not reached')")
    assert (done.returncode, done.stdout) == (STOPPED, "")


def test_a_signal_behind_the_end_of_the_work_changes_nothing():
    done = run("atexit.register(stop)\nprint('done', flush=True)\nreturn 0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_an_error_of_the_program_is_told_and_ends_with_1():
    done = run("raise ValueError('a bug')")
    assert done.returncode == FAILED
    assert "ValueError: a bug" in done.stderr


def test_output_that_was_closed_before_the_start_changes_no_exit_code():
    done = run("return 0", preexec_fn=lambda: (os.close(1), os.close(2)))
    assert done.returncode == 0


def test_children_and_theirs_are_ended_even_if_their_parent_is_gone():
    grandchild = "import time; time.sleep(1000)"
    child = (
        "import subprocess, sys, time;"
        f"print(subprocess.Popen([sys.executable, '-c', {grandchild!r}]).pid, flush=True);"
        "time.sleep(1000)"
    )
    done = run(
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)\n"
        "print(int(child.stdout.readline()), flush=True)\n"
        "try:\n    stop()\nfinally:\n"
        "    while not stopping._Process.family:\n        time.sleep(0.01)\n"
        "    child.kill()\n    child.wait()\n"
    )
    assert done.returncode == STOPPED
    with suppress(psutil.NoSuchProcess):
        orphan = psutil.Process(int(done.stdout))
        psutil.wait_procs([orphan], timeout=10)
        assert orphan.status() == psutil.STATUS_ZOMBIE  # whose end nobody asks for in a container


def test_a_call_leaves_the_signals_to_its_process(capsys):
    from jobs.cli import call

    before = signal.getsignal(signal.SIGTERM)
    assert call(["bogus"]) == 2
    assert signal.getsignal(signal.SIGTERM) is before
