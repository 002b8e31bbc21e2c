"""Files that appear whole or not at all.

A commit writes to a temporary name beside its target, flushes it to the disk, renames it and
flushes the folder. A reader therefore sees the old content or the new, never a part of either.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def committing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; rename it to `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two writers of one target from sharing a half-written file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def committing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; put it in the place of `folder` when the block ends well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.rglob("*"):
            flush(path)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
        flush(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def commit_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` as one commit."""
    with committing(path) as temporary:
        temporary.write_bytes(content)


def commit_text(path: Path, text: str) -> None:
    """Write `text` to `path` as one commit, in UTF-8."""
    commit_bytes(path, text.encode())


def commit_json(path: Path, value: Any) -> None:  # noqa: ANN401 - whatever JSON can say
    """Write `value` to `path` as indented JSON, as one commit."""
    commit_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever JSON can say
    """The value that a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_json_lines(path: Path) -> list[Any]:
    """The values of a JSON-lines file, none where it is missing.

    A last line that a crash cut short is left out.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def remove(path: Path) -> None:
    """Delete a file, or a folder with all that it holds; nothing where there is nothing."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
    elif isinstance(path, Path):
        shutil.rmtree(path)
    else:
        path.rmdir(recursive=True)  # of a store


def flush(path: Path) -> None:
    """Force a file's or a folder's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
