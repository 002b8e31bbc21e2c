"""Which versions of the libraries that decide a corpus's bytes have worked on it.

They are no part of a fingerprint: every new Pillow would have everything done again. So a corpus
may hold parts of two versions, and it says so.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.engine.storage import commit_json, read_json

LIBRARIES_FILE = "libraries.json"
_DECIDING = (
    *("anymix", "duckdb", "faiss-cpu", "ftfy", "numpy", "open-clip-torch", "pillow", "py3langid"),
    *("resvg-py", "soundfile", "tokenizers", "torch", "torchvision", "transformers"),
)


def remember_libraries(root: Path) -> None:
    """Add the versions of now to those that have worked on the corpus in `root`."""
    path = root / LIBRARIES_FILE
    known: dict[str, list[str]] = read_json(path) if path.exists() else {}
    found = {name: sorted({*known.get(name, ()), *_versions(name)}) for name in _DECIDING}
    if found != known:
        commit_json(path, found)


def mixed_libraries(root: Path) -> list[str]:
    """The libraries of which several versions have worked on a corpus, each with these."""
    path = root / LIBRARIES_FILE
    known: dict[str, list[str]] = read_json(path) if path.exists() else {}
    return [f"{name} {', '.join(found)}" for name, found in known.items() if len(found) > 1]


def _versions(name: str) -> list[str]:
    try:
        return [version(name)]
    except PackageNotFoundError:
        return []
