"""Forgetting, step by step, so that a kill at any instant is made good by the next command.

1. The marker says that a forget has begun, and of what; then the list remembers it for good.
2. The records go out of shards and tables (`take_out_unfinished`; the records table goes last).
3. The corpus is filled again: duplicates come back, and the shards that lost samples are rewritten.
4. The card is written anew, and the marker goes (`finish`).

Every run that finds a marker does step 2 first and step 4 last.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.engine.corpus import Corpus
from pipeline.engine.forgotten import Entry, gather, remember
from pipeline.engine.storage import commit_json, read_json
from pipeline.ledger.forget import find_records, take_out
from tokenizer_cache.publishing import discard

MARKER_FILE = "forgetting.json"
_REPORT_FILE = "report.html"


def begin(root: Path, entries: Iterable[Entry], *, is_filled: bool) -> bool:
    """Commit what is to be forgotten, together with what an unfinished forget had begun.

    Args:
        root: the corpus's folder; its lock is held.
        entries: what is to be forgotten.
        is_filled: whether the corpus is filled to its end now.

    Returns:
        Whether the corpus was filled to its end before the first of these forgets.
    """
    marker = _read(root)
    begun = [Entry(**entry) for entry in marker["entries"]] if marker else []
    was_filled = bool(marker["is_filled"]) if marker else is_filled
    wanted = sorted({*begun, *entries})
    commit_json(
        root / MARKER_FILE,
        {"is_filled": was_filled, "entries": [asdict(entry) for entry in wanted]},
    )
    return was_filled


def take_out_unfinished(root: Path) -> int:
    """Take out what the marker names; returns how many records were still there.

    The caller holds the corpus's lock.
    """
    marker = _read(root)
    if marker is None:
        return 0
    entries = [Entry(**entry) for entry in marker["entries"]]
    remember(root, entries)
    found = find_records(root, gather(entries))
    if found:
        for folder in _shard_folders(root):
            discard(folder, found.keys())
        (root / _REPORT_FILE).unlink(missing_ok=True)  # it shows records
        take_out(root, found)
    return sum(len(records) for records in found.values())


def finish(corpus: Corpus) -> None:
    """End a forget, if one has begun, when the corpus is filled again."""
    if _read(corpus.root) is None:
        return
    from jobs.embedding import text_encoder
    from pipeline.publish.card import CARD_FILE, write_card

    if (corpus.root / CARD_FILE).exists():
        write_card(corpus, embed=text_encoder(corpus))
    (corpus.root / MARKER_FILE).unlink()


def _read(root: Path) -> dict[str, Any] | None:
    """What a forget that has not ended left in its marker; None where there is none."""
    path = root / MARKER_FILE
    if not path.exists():
        return None
    marker: dict[str, Any] = read_json(path)
    return marker


def _shard_folders(root: Path) -> list[Path]:
    shards = root / "shards"
    return sorted(path for path in shards.iterdir() if path.is_dir()) if shards.exists() else []
