"""A bucket on an S3 server of our own, in a process that no kill of a run reaches."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from pipeline.engine.storage import on_store, to_path

_BUCKET = "test-bucket"


class Store:
    """The bucket, and what its server can be asked for."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint

    def path(self, name: str) -> Path:
        """A path in the bucket."""
        return to_path(f"s3://{_BUCKET}/{name}")

    def fail(self, times: int) -> None:
        """Answer the next requests with 503 SlowDown."""
        self._ask(f"_faults/{times}")

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Ignore conditions on writes while the block runs."""
        self._ask("_deaf/1")
        try:
            yield
        finally:
            self._ask("_deaf/0")

    def writes(self) -> set[str]:
        """What has been put or deleted since this was last asked, by its path in the bucket."""
        return {line.removeprefix(f"/{_BUCKET}/") for line in self._ask("_writes").splitlines()}

    def _ask(self, what: str) -> str:
        request = Request(f"{self._endpoint}/{what}", method="POST")  # noqa: S310
        with urlopen(request) as answer:  # noqa: S310
            return str(answer.read().decode())


@contextmanager
def serving() -> Iterator[Store]:
    """Serve an empty bucket while the block runs, and lead all that starts in it there."""
    command = [sys.executable, str(Path(__file__).with_name("server.py"))]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        endpoint = server.stdout.readline().strip()
        settings = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "3",
        }
        before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        store = Store(endpoint)
        try:
            on_store(store.path(""))[0].mkdir(_BUCKET)
            yield store
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
            server.kill()
