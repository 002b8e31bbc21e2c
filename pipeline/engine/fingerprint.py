"""Stable hashes of what decides an output, and of files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

_LENGTH = 16  # 64 bits: names of folders, not a defence against forgery


def fingerprint(**what: Any) -> str:  # noqa: ANN401 - whatever JSON can say
    """A 16-character hash of the given names and JSON values, independent of their order."""
    text = json.dumps(what, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # A lone surrogate stands for a byte that is not UTF-8, in a column's name for instance.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_LENGTH]


def hash_bytes(content: bytes) -> str:
    """SHA-256 of `content` as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_folder(
    folder: Path, *, leave_out: Collection[str] = (), removed: Mapping[str, str] | None = None
) -> str:
    """A fingerprint of the names and bytes of all files under `folder`.

    Args:
        folder: what is hashed.
        leave_out: names of files that do not count.
        removed: files that count although they are gone, by their place in `folder`, with their
            `hash_file`.
    """
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name not in leave_out
    )
    hashes = {str(path.relative_to(folder)): hash_file(path) for path in files}
    return fingerprint(files={**(removed or {}), **hashes})


def unit_interval(*words: str) -> float:
    """A number in [0, 1) drawn from the hash of `words`: the seed of every per-record choice."""
    digest = hashlib.sha256("\x1f".join(words).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
