"""What looking for duplicates costs, in a process of its own for each number of records.

The tables are as the stages write them. A tenth of the pictures are copies of others: half of them
have equal bytes, the others are about as far away as a crop. The hashes are drawn from nothing, so
that no clusters are in them: the hardest case for a search in clusters.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from filters.duplicates.settings import DuplicateSettings
from filters.duplicates.step import find_duplicates
from pipeline.engine.schemas import DUPLICATES, PICTURES, RECORDS, SCORES
from pipeline.engine.stage import FitInputs
from pipeline.engine.tables import part_path, read_table, write_table
from tests.benchmarks.result import Result

ROOT = Path(__file__).parents[2]
_ROWS_PER_PART = 10_000
_WIDTH = 64
_NOISE = 0.45
"""Length of what a near copy adds to a unit vector: distances about 0.09, up to 0.12."""
_LEVELS = {"exact": {}, "perceptual": {"perceptual": 0.15}}
_FOUND = "found.parquet"


def measure(sizes: Sequence[int]) -> Iterator[Result]:
    """Time and peak memory of the step: exact copies alone, and near ones as well."""
    seconds: dict[str, list[float]] = {kind: [] for kind in _LEVELS}
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="anymix-duplicates-") as folder:
            write_tables(Path(folder), size)
            for kind in _LEVELS:
                told = _in_own_process(folder, kind)
                seconds[kind].append(told["seconds"])
                yield Result(
                    name=f"{kind} copies among {size:,} records",
                    value=round(told["seconds"], 2), unit="s",
                    goal="< 60" if size >= 1_000_000 else "",
                    rival=f"finds {_recall(Path(folder), size, kind):.4f} of those planted",
                )  # fmt: skip
                yield Result(
                    name=f"{kind} copies among {size:,} records: peak memory",
                    value=round(told["peak_gib"], 2), unit="GiB", goal="< 2",
                )  # fmt: skip
    more = sizes[-1] / sizes[-2]
    for kind, each in seconds.items():
        yield Result(
            name=f"{kind} copies: time with {more:g} times the records",
            value=round(each[-1] / each[-2], 1), unit="times", goal=f"< {1.5 * more:g}",
        )  # fmt: skip


def write_tables(root: Path, size: int) -> None:
    """Records of which the last tenth are copies of the first: near ones, then equal ones."""
    chance = np.random.default_rng(0)
    copied = size // 20
    vectors = _unit(chance.normal(size=(size, _WIDTH)).astype(np.float32))
    noise = _NOISE * _unit(chance.normal(size=(copied, _WIDTH)).astype(np.float32))
    vectors[-2 * copied : -copied] = _unit(vectors[:copied] + noise)
    vectors[-copied:] = vectors[:copied]
    hashes = np.rint(vectors * (127 / abs(vectors).max(axis=1, keepdims=True))).astype(np.int8)
    contents = np.arange(size)
    contents[-copied:] = contents[:copied]
    for start in range(0, size, _ROWS_PER_PART):
        rows = range(start, min(size, start + _ROWS_PER_PART))
        ids = [_id(row) for row in rows]
        image_ids = [f"{content:064x}" for content in contents[rows.start : rows.stop]]
        known = {"record_id": ids, "image_id": image_ids, "pixel_hash": image_ids}
        own = [hashes[row].tobytes() for row in rows]
        for table, schema, columns in (
            ("records", RECORDS, known),
            ("pictures", PICTURES, known | {"perceptual_hash": own}),
            ("scores", SCORES, known | {"kind": ["original"] * len(rows)}),
        ):
            write_table(
                part_path(root / table, f"{start:09d}"), _table(schema, columns, len(rows)), schema
            )


def _table(schema: pa.Schema, columns: dict[str, list], count: int) -> pa.Table:
    """The columns, and nothing in the others: null, or zero or empty where that must not be."""
    arrays = []
    for field in schema:
        empty = "" if pa.types.is_string(field.type) else 0
        nothing = [] if pa.types.is_list(field.type) else empty
        given = columns.get(field.name, [None if field.nullable else nothing] * count)
        arrays.append(pa.array(given, field.type))
    return pa.table(arrays, schema=schema)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _id(row: int) -> str:
    return f"{row:016x}"


def _in_own_process(folder: str, kind: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.filters_duplicates_lookup", folder, kind]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, float] = json.loads(done.stdout)
    return told


def _recall(root: Path, size: int, kind: str) -> float:
    """The share of the planted copies that point to what they were made of."""
    rows = read_table(root / _FOUND).to_pylist()
    found = {row["record_id"]: row["duplicate_of"] for row in rows}
    copied = size // 20
    planted = {_id(size - copied + row): _id(row) for row in range(copied)}
    if kind == "perceptual":
        planted |= {_id(size - 2 * copied + row): _id(row) for row in range(copied)}
    return sum(found.get(copy) == own for copy, own in planted.items()) / len(planted)


def main() -> None:
    """Find the copies once; print the seconds and the peak of this process."""
    root, kind = Path(sys.argv[1]), sys.argv[2]
    tables = ("records", "pictures", "scores")
    inputs = FitInputs(
        tables={table: sorted((root / table).iterdir()) for table in tables}, models={}
    )
    began = time.perf_counter()
    found = find_duplicates(DuplicateSettings(**_LEVELS[kind]), inputs).to_arrow_table()
    seconds = time.perf_counter() - began
    write_table(root / _FOUND, found, DUPLICATES)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "peak_gib": peak}))  # noqa: T201


if __name__ == "__main__":
    main()
