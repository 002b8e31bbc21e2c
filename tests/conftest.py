import os

import hypothesis
import pytest

from tests.faults.table import tell
from tests.stores.bucket import serving

# Before torch is imported: its threads wait asleep. Where processes share the cores, threads that
# spin while they wait for each other take most of them.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: a thread for each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test is timed: a busy machine is no fault. On CI the same examples are tried each time.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


_LONGEST = {
    "test_end_to_end.py", "jobs", "trainer", "publish", "ledger", "stores", "selection", "backends",
}  # fmt: skip
"""Files and folders of the tests that take longest."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """The longest files come first, so that at the end no process waits for another's."""
    items.sort(key=lambda item: _LONGEST.isdisjoint(item.path.parts))


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
