"""How OpenMP's threads wait, as libgomp itself tells when a command loads it."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, importlib.util, pathlib, sys

from jobs import __main__

sys.argv[1:] = ["--help"]
__main__.finish = lambda command: command()
__main__.main()
torch = pathlib.Path(importlib.util.find_spec("torch").origin).parent  # not imported, for speed
ctypes.CDLL(torch / "lib" / "libgomp.so.1")
"""


@pytest.mark.parametrize(
    ("given", "spins"), [({}, "3000"), ({"GOMP_SPINCOUNT": "77"}, "77")], ids=["ours", "theirs"]
)
def test_threads_of_a_command_sleep_soon_unless_the_environment_says_otherwise(given, spins):
    unset = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**environment, "OMP_DISPLAY_ENV": "VERBOSE", **given},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr
