"""What several test processes need and only one of them makes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object], *, copies: bool
) -> Path:
    """A folder that the first process of a test run makes.

    Args:
        factory: of the process.
        name: of the folder.
        make: fills the empty folder.
        copies: whether each process gets a copy, because its tests may write there.
    """
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"shared-{name}"
    done = folder.with_name(f"{folder.name}.done")
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    if not copies:
        return folder
    own = factory.mktemp(name) / name
    shutil.copytree(folder, own)
    return own
