"""The files that lie in a corpus's sources and are not read, counted by source and ending."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.engine.storage import commit_json, read_json
from pipeline.sources.endings import sentence

UNREAD_FILE = "unread.json"

Unread = Mapping[str, Mapping[str, int]]
"""For each source, how many files there are of each kind."""


def read_unread(root: Path) -> Unread:
    """What the last run on the corpus in `root` did not read."""
    path = root / UNREAD_FILE
    found: Unread = read_json(path) if path.exists() else {}
    return found


def remember_unread(root: Path, found: Unread) -> None:
    """Write what a run does not read, where it has changed."""
    if found != read_unread(root):
        commit_json(root / UNREAD_FILE, found)


def describe_unread(found: Unread) -> list[str]:
    """A sentence for each source of which something is not read."""
    return [f"source {name}: {sentence(kinds)}" for name, kinds in found.items()]
