"""What the engine costs: a stage that does nothing, beside bare Ray Data on the same files.

Both read a records table of metadata and write the same rows with two actors. Ours names, commits
(flushed to the disk), counts and can go on after a kill; the rival writes files and that is all.
It runs in two ways, with a block for each file, as our parts are, and as Ray Data cuts the files by
itself; the faster one counts.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipeline.engine import schemas
from pipeline.engine.corpus import Corpus
from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.parts import Part
from pipeline.engine.ray_session import connect_to_ray
from pipeline.engine.runner import Link, RayRunner
from pipeline.engine.tables import write_table
from pipeline.engine.worker import RunContext
from tests.benchmarks.idle_stage import copying_stage, empty_stage
from tests.benchmarks.result import Result, spread

RECORDS_PER_PART = 1000
NUM_WORKERS = 2


class Identity:
    """The rival's actor: gives the batch that it gets."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        return batch


def measure(num_parts: int, repeats: int) -> Iterator[Result]:
    """Records per second of both in turns, and their ratio."""
    connect_to_ray()
    num_records = num_parts * RECORDS_PER_PART
    ours: list[float] = []
    rivals: dict[str, list[float]] = {"a block a file": [], "its own blocks": []}
    with tempfile.TemporaryDirectory(prefix="anymix-overhead-") as folder:
        corpus = _corpus(Path(folder) / "corpus", num_parts)
        for repeat in range(repeats + 1):
            seconds = {"ours": _ours_s(corpus, Path(folder) / f"ours-{repeat}")}
            for way, num_blocks in zip(rivals, (num_parts, None), strict=True):
                copy = Path(folder) / f"rival-{repeat}-{num_blocks}"
                seconds[way] = _rivals_s(corpus, copy, num_blocks)
            if repeat:  # the first warms up Ray's processes for all
                ours.append(num_records / seconds.pop("ours"))
                for way, taken in seconds.items():
                    rivals[way].append(num_records / taken)
    fastest = max(statistics.median(rates) for rates in rivals.values())
    told = "; ".join(f"bare Ray Data, {way}: {spread(rates, 0)}" for way, rates in rivals.items())
    yield Result(
        name=f"a stage that does nothing, {num_records:,} records in {num_parts} parts",
        value=round(statistics.median(ours) / fastest, 2),
        unit="ratio",
        goal=">= 0.8",
        rival=f"records/s: ours {spread(ours, 0)}; {told}",
    )


def _corpus(root: Path, num_parts: int) -> Corpus:
    """A corpus whose records are committed: metadata without pictures."""
    parts = [
        Part.of("metadata", {"start": number}, num_records=RECORDS_PER_PART)
        for number in range(num_parts)
    ]
    corpus = Corpus(root=root, recipe={}, parts=parts)
    for task in corpus.resolve_stage(empty_stage()):
        write_table(task.output, _records(task.work.part), schemas.RECORDS)
    return corpus


def _records(part: str) -> pa.Table:
    rows = [
        {
            "record_id": fingerprint(part=part, number=number),
            "source": "metadata",
            "key": f"{part}/{number:06}",
            "caption": f"record {number} of {part}, a picture that nobody has looked at yet",
            "more_captions": [],
            "repairs": [],
            "opt_outs": [],
            "licence": "CC-BY-4.0",
            "attribution": "somebody",
            "split": "train",
            "origin": f"https://example.org/{part}/{number}.jpg",
        }
        for number in range(RECORDS_PER_PART)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.RECORDS)


def _ours_s(corpus: Corpus, folder: Path) -> float:
    """Seconds of the engine; `folder` is where the copies are committed."""
    began = time.monotonic()
    own = Corpus(root=folder, recipe={}, parts=corpus.parts, tables=dict(corpus.tables))
    tasks = own.resolve_stage(copying_stage())
    link = Link(spec=copying_stage(), tasks={task.work.part: task for task in tasks})
    context = RunContext(run="overhead", attempts=folder / "attempts", timeout_s=600)
    runner = RayRunner(num_workers=NUM_WORKERS, context=context)
    num_rows = sum(done.num_rows for done in runner.run_chain([link], {}))
    seconds = time.monotonic() - began
    assert num_rows == len(corpus.parts) * RECORDS_PER_PART
    return seconds


def _rivals_s(corpus: Corpus, folder: Path, num_blocks: int | None) -> float:
    """Seconds of `read_parquet`, `map_batches` and `write_parquet`."""
    import ray

    began = time.monotonic()
    files = [str(path) for path in corpus.files("records")]
    rows = ray.data.read_parquet(files, override_num_blocks=num_blocks).map_batches(
        Identity,
        batch_size=RECORDS_PER_PART,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=NUM_WORKERS),
    )
    rows.write_parquet(str(folder))
    return time.monotonic() - began
