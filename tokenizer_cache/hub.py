"""Files of a folder, or of a name on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.synthesis.weights import split_revision


def hub_place(weights: str) -> tuple[str, dict[str, Any]]:
    """A folder, or a name on the hub, and the revision after its `@`."""
    name, revision = split_revision(weights)
    return name, {"revision": revision} if revision else {}


def hub_file(weights: str, name: str) -> Path:
    """A file of a folder or a name on the hub, fetched into transformers' cache.

    Raises:
        OSError: when it is not there.
    """
    from transformers.utils.hub import cached_file

    place, where = hub_place(weights)
    found = cached_file(place, name, **where)
    assert found is not None, "a missing file is an OSError"  # noqa: S101
    return Path(found)


def find_hub_file(weights: str, name: str) -> Path | None:
    """The same for a file that need not be there."""
    from transformers.utils.hub import cached_file

    place, where = hub_place(weights)
    found = cached_file(place, name, **where, _raise_exceptions_for_missing_entries=False)
    return Path(found) if found else None
