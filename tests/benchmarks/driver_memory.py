"""How the driver's memory grows with the corpus: simulated parts of 1,000 records without rows.

Each size has a process of its own, whose peak is what the system says; Ray's processes and the
workers are others and do not count. The driver does all that it does in `anymix run`: it places the
stage's table, runs its chain, writes the events, and resolves the stage again.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from jobs.progress import Reporter
from pipeline.engine.corpus import Corpus
from pipeline.engine.events import EventLog
from pipeline.engine.parts import Part
from pipeline.engine.ray_session import connect_to_ray
from pipeline.engine.runner import Link, RayRunner
from pipeline.engine.worker import RunContext
from tests.benchmarks.idle_stage import empty_stage
from tests.benchmarks.result import Result

ROOT = Path(__file__).parents[2]
RECORDS_PER_PART = 1000


def measure(sizes: Sequence[int]) -> Iterator[Result]:
    """The driver's peak at each number of records, and how much it grows."""
    peaks = {num_records: _peak_mb(num_records) for num_records in sizes}
    figures = ", ".join(f"{num:,}: {peak:.0f} MB" for num, peak in peaks.items())
    yield Result(
        name=f"driver's memory, {sizes[0]:,} to {sizes[-1]:,} records: growth",
        value=round(peaks[sizes[-1]] - peaks[sizes[0]], 1),
        unit="MB",
        goal="< 200",
        rival=f"peaks: {figures}",
    )


def _peak_mb(num_records: int) -> float:
    with tempfile.TemporaryDirectory(prefix="anymix-memory-") as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.driver_memory", folder, str(num_records)],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    peak: float = json.loads(done.stdout)["peak_mb"]
    return peak


def drive(root: Path, num_records: int) -> None:
    """What the driver does for one stage over a corpus of that size."""
    parts = [
        Part.of("simulated", {"start": start}, num_records=RECORDS_PER_PART)
        for start in range(0, num_records, RECORDS_PER_PART)
    ]
    corpus, spec = Corpus(root=root, recipe={}, parts=parts), empty_stage()
    extras = {part.name: {"part": {"slice": part.slice}, "source": {}} for part in parts}
    tasks = corpus.resolve_stage(spec, extras)
    link = Link(spec=spec, tasks={task.work.part: task for task in tasks})
    runner = RayRunner(num_workers=2, context=RunContext(run="memory", attempts=root / "attempts"))
    log = EventLog(root / "events.jsonl", "memory")
    with Reporter(Console(stderr=True)).chain({spec.name: len(parts)}, of=len(parts)) as show:
        for done in runner.run_chain([link], {}):
            assert not done.error, done.error
            log.write("part-done", part=done.part)
            show.part(done)
    assert not corpus.resolve_stage(spec, extras)


def main() -> None:
    """Drive once, and print the peak of this process."""
    connect_to_ray()
    drive(Path(sys.argv[1]), int(sys.argv[2]))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB
    print(json.dumps({"peak_mb": peak_mb}))  # noqa: T201


if __name__ == "__main__":
    main()
