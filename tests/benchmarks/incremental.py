"""How long a run takes that has nothing to do, or one changed file; beside the whole run.

The corpus is real: JSON-lines files of 1,000 texts each, and a few shapes for the models that are
fitted on pictures. The commands are what a person types, Python's start included.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmarks.result import Result, spread
from tests.jobs.conftest import TINY

ROOT = Path(__file__).parents[2]
ROWS_PER_FILE = 1000
_REPEATS = 3
_WORDS = (
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty",
)  # fmt: skip


def measure(sizes: Sequence[int]) -> Iterator[Result]:
    """For each number of records: the run without work, and with one changed file."""
    for num_records in sizes:
        with tempfile.TemporaryDirectory(prefix="anymix-incremental-") as folder:
            yield from _measure(Path(folder), num_records)


def _measure(folder: Path, num_records: int) -> Iterator[Result]:
    recipe, files = _write_recipe(folder, num_records)
    full_s, _ = _run(recipe, folder)
    idle = []
    for _ in range(_REPEATS):
        seconds, said = _run(recipe, folder)
        assert said.count("nothing has changed") == 16, said
        idle.append(seconds)
    changed = []
    for number, file in enumerate(files[:_REPEATS]):
        _write_file(file, start=num_records + number * ROWS_PER_FILE)
        seconds, said = _run(recipe, folder)
        assert f"{ROWS_PER_FILE} rows in 1 parts ({len(files)} unchanged)" in said, said
        changed.append(seconds)
    whole = f"the whole run: {full_s:.0f} s"
    yield Result(
        name=f"no-op run, {num_records:,} records in {len(files)} files",
        value=round(statistics.median(idle), 2), unit="s", goal="< 5", rival=whole,
    )  # fmt: skip
    yield Result(
        name=f"one changed file of {len(files)}, {num_records:,} records",
        value=round(statistics.median(changed), 2),
        unit="s",
        # 2 % of the full run and 5 s. Smaller corpora show the curve; Ray's start outweighs them.
        goal=f"< {0.02 * full_s + 5:.2f}" if len(files) >= 1000 else "",
        rival=f"{whole}; three files: {spread(changed)} s",
    )


def _write_recipe(folder: Path, num_records: int) -> tuple[Path, list[Path]]:
    """A recipe and its source: a part for each file, and one of shapes."""
    source = folder / "source"
    source.mkdir()
    files = [source / f"{number:06}.jsonl" for number in range(num_records // ROWS_PER_FILE)]
    for number, file in enumerate(files):
        _write_file(file, start=number * ROWS_PER_FILE)
    text = TINY
    for line, other in {
        "{kind: pydoc, limit: 40}": f"{{kind: text, path: {source}/*.jsonl}}",
        "rows_per_part: 40": f"rows_per_part: {ROWS_PER_FILE}",
        "num_workers: 0": "num_workers: 2",
    }.items():
        assert line in text, f"the tiny recipe has no {line!r} any more"
        text = text.replace(line, other)
    recipe = folder / "recipe.yaml"
    recipe.write_text(text)
    return recipe, files


def _write_file(file: Path, *, start: int) -> None:
    """1,000 texts that are like no other file's."""
    with file.open("w") as stream:
        for number in range(start, start + ROWS_PER_FILE):
            words = [_WORDS[number // 10**place % 10] for place in range(6)]
            text = f"Note {number}: the {' '.join(words)} lies beyond the {words[0]} road."
            stream.write(json.dumps({"text": text}) + "\n")


def _run(recipe: Path, folder: Path) -> tuple[float, str]:
    """How long `anymix run` takes, in seconds, and what it says."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "run", recipe, "--corpus", folder / "corpus"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return time.monotonic() - began, done.stderr
