"""How many records are synthesized: the recipe's limit, turned once into a cut on record hashes.

A record takes part when its hash lies below the cut. The cut is pinned, so that a new record joins
by its own hash and moves no other.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path

from pipeline.engine.fingerprint import unit_interval
from pipeline.engine.stage import FitInputs, Progress
from pipeline.engine.storage import commit_json, read_json
from pipeline.engine.tables import connect
from pipeline.settings import Settings

_FILE = "cut.json"


class LimitSettings(Settings):
    """The part of the synthesis that decides the cut."""

    limit: int | None


def chance(record_id: str) -> float:
    """Where in [0, 1) a record stands when records are chosen for synthesis."""
    return unit_interval("synthesis", record_id)


def read_cut(folder: Path) -> float:
    """The cut that `fit` wrote: a record takes part when `chance(record_id) < cut`."""
    return float(read_json(folder / _FILE)["cut"])


def fit(settings: LimitSettings, inputs: FitInputs, folder: Path) -> Iterator[Progress]:
    """Find the cut below which `limit` of the image records lie; 1 where there are fewer.

    Without a limit nothing is read: every record takes part, from the first on.
    """
    commit_json(folder / _FILE, {"cut": _cut(settings.limit, inputs)})
    yield Progress(done=1, total=1)


def _cut(limit: int | None, inputs: FitInputs) -> float:
    if limit is None:
        return 1.0
    records = connect({"records": inputs.tables["records"]}).sql(
        "SELECT record_id FROM records WHERE image_id IS NOT NULL"
    )
    chances = (
        chance(record_id)
        for batch in records.to_arrow_reader()
        for record_id in batch.column("record_id").to_pylist()
    )
    lowest = heapq.nsmallest(limit + 1, chances)
    return lowest[-1] if len(lowest) > limit else 1.0
