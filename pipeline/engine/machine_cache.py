"""This machine's cache: what can be fetched or made again, such as copies of folders on a store."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.storage import TEMPORARY_SUFFIX, flush, is_local, on_store


def cache_folder() -> Path:
    """This machine's folder for what can be fetched or made again."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ANYMIX_CACHE") or Path(home) / "anymix")


def local_copy(folder: Path) -> Path:
    """A local folder with the files of one that was committed, for loaders that map files.

    A folder on a store is fetched once to this machine's cache, under a name that follows from what
    lies there, so that the workers of a machine share it and a folder that has changed is another.
    """
    if is_local(folder):
        return folder
    store, root = on_store(folder)
    found = store.find(root, detail=True)
    if not found:
        raise FileNotFoundError(f"{folder} holds no files")
    names = {name: name.removeprefix(root).lstrip("/") for name in found}
    listing = {names[name]: _version(info) for name, info in found.items()}
    copy = cache_folder() / "copies" / fingerprint(folder=str(folder), listing=listing)
    if copy.exists():
        return copy
    copy.parent.mkdir(parents=True, exist_ok=True)
    with (copy.parent / f".{copy.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker that fetches it is waited for
        if not copy.exists():
            _fetch(store, names, copy)
    return copy


def _fetch(store: Any, names: Mapping[str, str], copy: Path) -> None:  # noqa: ANN401 - fsspec's
    """Copy files of a store, by their names below `copy`; they appear together."""
    with tempfile.TemporaryDirectory(dir=copy.parent, suffix=TEMPORARY_SUFFIX) as temporary:
        whole = Path(temporary) / "whole"
        for name, relative in names.items():
            (whole / relative).parent.mkdir(parents=True, exist_ok=True)
            store.get_file(name, str(whole / relative))
        for path in whole.rglob("*"):
            flush(path)
        try:
            whole.rename(copy)
        except OSError:  # where locks do nothing, another worker was faster; its copy is the same
            if not copy.exists():
                raise


def _version(info: dict[str, Any]) -> list[Any]:
    """What changes with an object's content: its size, and its tag or generation."""
    return [info.get("size"), info.get("ETag") or info.get("generation") or info.get("etag")]
