"""Runs tasks and fits, in this process or through Ray; commits, times and counts them.

Part ids, not rows, flow through Ray Data: an actor reads its inputs by path, commits its output and
passes on a few figures. Ray Data gives placement, pools, backpressure and retries; the committed
files give exactly-once.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from pipeline.engine.corpus import MODEL_FILE, Task
from pipeline.engine.fingerprint import hash_folder
from pipeline.engine.schemas import REJECTS
from pipeline.engine.stage import FitInputs, FitSpec, Progress, StageSpec, load
from pipeline.engine.storage import (
    TEMPORARY_SUFFIX,
    commit_json,
    commit_text,
    committing_folder,
    is_local,
    local_copy,
)
from pipeline.engine.tables import write_table

_MIN_LOGICAL_CPUS = 6
"""Ray Data's helper stages around the LLM starve on two CPUs (the job waits for ever); with six
logical ones on two cores it runs, and the operating system shares the real ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartDone:
    """What the runner knows of a committed part."""

    part: str
    seconds: float
    num_rows: int
    num_rejects: int


class Runner(Protocol):
    """Where tasks and fits run."""

    def run_tasks(
        self, spec: StageSpec, tasks: Sequence[Task], models: Mapping[str, Path]
    ) -> Iterator[PartDone]:
        """Do the tasks of a stage in any order; a part is yielded when it is committed."""

    def run_fit(self, spec: FitSpec, inputs: FitInputs, folder: Path) -> Iterator[Progress]:
        """Fit a model and commit its folder; yields how far it is."""


class InProcessRunner:
    """Everything in this process, one part after the other: for small corpora and a debugger."""

    def run_tasks(
        self, spec: StageSpec, tasks: Sequence[Task], models: Mapping[str, Path]
    ) -> Iterator[PartDone]:
        """Do the tasks in their order."""
        worker = CommittingWorker(spec, models)
        return (PartDone(**worker({"task": task.to_json()})) for task in tasks)

    def run_fit(self, spec: FitSpec, inputs: FitInputs, folder: Path) -> Iterator[Progress]:
        """Fit here."""
        return fit_and_commit(spec, inputs, folder)


class RayRunner:
    """Actor pools on the Ray cluster that this process is connected to."""

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers

    def run_tasks(
        self, spec: StageSpec, tasks: Sequence[Task], models: Mapping[str, Path]
    ) -> Iterator[PartDone]:
        """Do the tasks with a pool of at most `num_workers` actors."""
        import ray

        resources = spec.resources
        pool = ray.data.ActorPoolStrategy(size=min(self._num_workers, len(tasks)))
        done = ray.data.from_items(
            [{"task": task.to_json()} for task in tasks], override_num_blocks=len(tasks)
        ).map(
            CommittingWorker,  # type: ignore[arg-type] # Ray's stubs know functions only
            fn_constructor_kwargs={"spec": spec, "models": dict(models)},
            compute=pool,
            num_cpus=resources.num_cpus,
            num_gpus=resources.num_gpus,
            memory=resources.memory_bytes,
        )
        for row in done.iter_rows():
            yield PartDone(**row)

    def run_fit(self, spec: FitSpec, inputs: FitInputs, folder: Path) -> Iterator[Progress]:
        """Fit in a Ray task that streams its progress."""
        import ray

        remote = ray.remote(fit_and_commit).options(
            num_cpus=spec.resources.num_cpus,
            num_gpus=spec.resources.num_gpus,
            memory=spec.resources.memory_bytes,
            num_returns="streaming",
            max_retries=0,  # a retry would start the progress again; the next run fits anew
            # Ray starts tasks with as many threads as CPUs they reserve, unless told.
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(os.cpu_count())}},
        )
        references: Iterable[Any] = remote.remote(spec, inputs, folder)  # type: ignore[assignment]
        for reference in references:
            yield ray.get(reference)


class CommittingWorker:
    """A stage's worker with the commit behind it: what Ray Data's actors are made of."""

    def __init__(self, spec: StageSpec, models: Mapping[str, Path]) -> None:
        self._spec = spec
        local = {name: local_copy(folder) for name, folder in models.items()}
        self._worker = load(spec.worker)(spec.settings, local)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Do one task. The rejects go first: the table's file is the commit."""
        task = Task.from_json(row["task"])
        started = time.monotonic()
        output = self._worker(task.work)
        write_table(task.rejects, output.rejects, REJECTS)
        write_table(task.output, output.rows, self._spec.schema)
        return {
            "part": task.work.part,
            "seconds": time.monotonic() - started,
            "num_rows": len(output.rows),
            "num_rejects": len(output.rejects),
        }


def fit_and_commit(spec: FitSpec, inputs: FitInputs, folder: Path) -> Iterator[Progress]:
    """Fit a model into a temporary folder and commit it as `folder` with its description."""
    local = {name: local_copy(model) for name, model in inputs.models.items()}
    with committing_folder(folder, last=MODEL_FILE) as temporary:
        yield from load(spec.fit)(spec.settings, replace(inputs, models=local), temporary)
        description = {
            "name": spec.name,
            "version": spec.version,
            "settings": spec.settings.model_dump(mode="json"),
            "content": hash_folder(temporary),
            "fitted_on": {
                table: sorted(f"{path.parent.name}/{path.name}" for path in paths)
                for table, paths in inputs.tables.items()
            },
        }
        commit_json(temporary / MODEL_FILE, description)


def connect_to_ray() -> bool:
    """Join the cluster of `RAY_ADDRESS`, or start Ray on this machine.

    Returns:
        Whether that was done now; False where this process was connected already.
    """
    import logging

    import ray
    import ray.data

    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
    if "RAY_ADDRESS" in os.environ:
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
    else:
        # Ray's C++ side writes warnings about its own actors to stderr, between our lines.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        ray.init(
            num_cpus=max(_MIN_LOGICAL_CPUS, os.cpu_count() or 1),
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    for name in ("ray.data", "ray.llm", "ray._private.worker"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for handler in logging.getLogger("ray.data").handlers:
        handler.setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # The default of 1,800 s ends a run that waits half an hour for a GPU or a model's download.
    context.execution_no_progress_timeout_s = -1
    return True


class EventLog:
    """`events.jsonl`: one line per stage and part, appended as it happens."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, stage: str, **what: Any) -> None:  # noqa: ANN401 - whatever JSON can say
        """Append one event with the time."""
        event = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "stage": stage, **what}
        if not is_local(self._path):  # a store knows no appending
            before = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
            commit_text(self._path, before + json.dumps(event) + "\n")
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(event) + "\n")


def remove_leftovers(root: Path) -> None:
    """Delete temporary files that a killed run left behind; nobody reads them.

    A store has none: what a killed writer had sent becomes no object.
    """
    if not is_local(root):
        return
    for path in list(root.rglob(f".*{TEMPORARY_SUFFIX}")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
