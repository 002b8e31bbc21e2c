"""Stages that stop through Ray, for what a process prints when they do.

    python -m tests.faults.stopped_stages FOLDER

prints how each ended, in the words that a person is told.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.engine.ray_session import connect_to_ray
from pipeline.engine.runner import Link, RayRunner
from pipeline.engine.worker import RunContext
from pipeline.errors import UserError
from tests.faults.stage import corpus_of, stage

POOLED, SINGLE = 2, 4
"""Fewer workers than parts share them in pools; with as many, each part has its own."""


def main() -> None:
    """Stop stages before and in a part, in pools and without."""
    connect_to_ray()
    for worker, num_workers in (
        ("DiskFull", POOLED),
        ("LacksModel", POOLED),
        ("LacksModel", SINGLE),
    ):
        corpus = corpus_of(Path(sys.argv[1], f"{worker}-{num_workers}"))
        spec = stage(worker, bad="2-3")
        tasks = {task.work.part: task for task in corpus.resolve_stage(spec)}
        context = RunContext(run="test", attempts=corpus.root / "attempts")
        runner = RayRunner(num_workers=num_workers, context=context)
        try:
            list(runner.run_chain([Link(spec=spec, tasks=tasks)], {}))
        except UserError as error:
            print(f"{error.exit_code} {error}")  # noqa: T201


if __name__ == "__main__":
    main()
