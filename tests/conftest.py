import os
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from pipeline.engine.storage import on_store, to_path
from tests.faults.table import tell


class Store:
    """A bucket on an S3 server of our own."""

    def __init__(self, endpoint):
        self.endpoint = endpoint

    def path(self, name):
        """A path in the bucket."""
        return to_path(f"s3://test-bucket/{name}")

    def fail(self, times):
        """Answer the next requests with 503 SlowDown."""
        urlopen(Request(f"{self.endpoint}/_faults/{times}", method="POST"))  # noqa: S310

    def writes(self):
        """What has been put or deleted since this was last asked, without the bucket's name."""
        with urlopen(Request(f"{self.endpoint}/_writes", method="POST")) as answer:  # noqa: S310
            lines = answer.read().decode().splitlines()
        return {line.removeprefix("/test-bucket/") for line in lines}


@pytest.fixture(scope="session")
def _s3_server(tmp_path_factory):
    command = [sys.executable, Path(__file__).parent / "stores" / "server.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        settings = {
            "AWS_ENDPOINT_URL": server.stdout.readline().decode().strip(),
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "3",
        }
        before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        store = Store(settings["AWS_ENDPOINT_URL"])
        on_store(store.path(""))[0].mkdir("test-bucket")
        yield store
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        server.kill()


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
