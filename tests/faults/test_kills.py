import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_kills_while_tokenizing_and_writing_shards_leave_the_same_bytes():
    # In a process of its own: what forks should have no threads but its own.
    command = [sys.executable, "-m", "tests.faults.kills", "--kills", "6", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "none differs" in done.stdout
