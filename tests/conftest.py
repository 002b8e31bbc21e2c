import os

import pytest

from tests.faults.table import tell
from tests.stores.bucket import serving

# Before torch is imported: its threads wait asleep. Where processes share the cores, threads that
# spin while they wait for each other take most of them.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="session")
def _s3_server():
    with serving() as store:
        yield store


@pytest.fixture
def store(_s3_server, tmp_path, monkeypatch):
    """A bucket that works, and an empty cache for copies from it."""
    monkeypatch.setenv("ANYMIX_CACHE", str(tmp_path / "cache"))
    _s3_server.fail(0)
    yield _s3_server
    _s3_server.fail(0)


@pytest.fixture
def fault():
    """Tells `tests/FAULTS.md` what a fault looked like."""
    return tell
