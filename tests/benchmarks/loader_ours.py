"""Our side of `loader`, each in a process of its own.

    python -m tests.benchmarks.loader_ours SHARDS read|go-far|resume NUM

`read` reads so many rows after a first window; `go-far` reads until so many samples are given and
leaves its state beside the shards; `resume` goes on from there. Each prints one JSON object.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from pipeline.engine.storage import commit_json, read_json
from tests.benchmarks.loader_job import ROWS_PER_WINDOW, SEQ_LEN, peak_mb
from tokenizer_cache.manifest import open_manifest
from trainer.data.loader import Loader
from trainer.data.packing import Row
from trainer.settings import LoaderSettings, TrainSettings

_SETTINGS = TrainSettings(
    seq_len=SEQ_LEN, caption_max_tokens=128, loader=LoaderSettings(num_threads=1)
)
_ROWS = 8
"""Of a step."""
_STATE = "loader-state.json"


def read(shards: Path, num_rows: int) -> dict[str, Any]:
    """Read so many rows, as the rivals do, after a first window."""
    began = time.perf_counter()
    loader, _, start = _start(shards, state=None)
    loader.next_rows(ROWS_PER_WINDOW - _ROWS)
    window_s = time.perf_counter() - began
    done = _count(loader, lambda number: number * _ROWS < num_rows)
    wall_s = time.perf_counter() - began - window_s
    efficiency = done["tokens"] / (num_rows * SEQ_LEN)
    return {**start, **done, "window_s": window_s, "wall_s": wall_s, "efficiency": efficiency}


def go_far(shards: Path, num_samples: int) -> dict[str, Any]:
    """Read until so many samples are given; the state then is left for `resume`."""
    loader, _, start = _start(shards, state=None)

    def goes_on(number: int) -> bool:
        if number * _ROWS % ROWS_PER_WINDOW:
            return True
        return sum(cursor.num_samples for cursor in loader.given().values()) < num_samples

    done = _count(loader, goes_on)
    commit_json(shards / _STATE, loader.state_dict())
    return {**start, **done, "next_rows": _digest(loader.next_rows(_ROWS))}


def resume(shards: Path, _: int) -> dict[str, Any]:
    """The next rows after the state that `go_far` has left."""
    _, rows, start = _start(shards, state=read_json(shards / _STATE))
    return {**start, "next_rows": _digest(rows)}


def _start(
    shards: Path, state: dict[str, Any] | None
) -> tuple[Loader, list[Row], dict[str, float]]:
    """A loader, its first rows, and the seconds that they took."""
    began, cpu = time.perf_counter(), time.process_time()
    loader = Loader(_SETTINGS, open_manifest(shards))
    if state:
        loader.load_state_dict(state)
    rows = loader.next_rows(_ROWS)
    seconds = {
        "start_s": time.perf_counter() - began, "start_cpu_s": time.process_time() - cpu,
    }  # fmt: skip
    return loader, rows, seconds


def _count(loader: Loader, goes_on: Callable[[int], bool]) -> dict[str, Any]:
    """Read while a condition on the number of steps holds; tokens, seconds and memory of it."""
    before, cpu = _num_tokens(loader), time.process_time()
    number = 0
    while goes_on(number):
        loader.next_rows(_ROWS)
        number += 1
    return {
        "cpu_s": time.process_time() - cpu,
        "tokens": _num_tokens(loader) - before,
        "peak_mb": peak_mb(),
        "mapped_mb": psutil.Process().memory_info().shared // 2**20,
    }


def _num_tokens(loader: Loader) -> int:
    return sum(cursor.num_tokens for cursor in loader.given().values())


def _digest(rows: Sequence[Row]) -> str:
    return hashlib.sha256(b"".join(row.tokens.tobytes() for row in rows)).hexdigest()


def main() -> None:
    """Do what the command line says."""
    shards, what, num = sys.argv[1:]
    done = {"read": read, "go-far": go_far, "resume": resume}[what](Path(shards), int(num))
    print(json.dumps(done))  # noqa: T201


if __name__ == "__main__":
    main()
