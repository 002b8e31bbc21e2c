"""Does one part of a stage and commits it: what runs at the far end of the runner.

Here is the boundary of a part. A worker that dies, hangs or raises is tried again, a record that is
to blame goes into quarantine, and a part that cannot be done at all is reported while others go on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyarrow as pa

from pipeline.engine.attempts import Attempts, PartFailedError, patiently, persevere
from pipeline.engine.corpus import Task
from pipeline.engine.faults import as_user_error
from pipeline.engine.machine_cache import local_copy
from pipeline.engine.schemas import REJECTS, reject
from pipeline.engine.stage import Output, StageSpec, load
from pipeline.engine.tables import as_table, create_table, write_table
from pipeline.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What every worker of a run is told.

    Attributes:
        run: the run's name.
        attempts: folder of the tries that are under way.
        timeout_s: how long a record (or a batch that is announced as one) may take, in seconds;
            None sets no limit.
    """

    run: str
    attempts: Path
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartDone:
    """What became of a part in one stage.

    Attributes:
        stage: the stage.
        part: the part's name.
        seconds: how long it took, tries that failed not counted.
        num_rows: rows of the stage's table.
        num_rejects: rows of its rejects.
        error: why the part could not be done; empty when it is committed.
    """

    stage: str
    part: str
    seconds: float
    num_rows: int
    num_rejects: int
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """How far a stage has come inside parts that are not done yet.

    Attributes:
        stage: the stage.
        num_records: records that have been dealt with since the last such report.
        num_tokens: tokens that were written for them.
        notices: what a person should know, a line each.
    """

    stage: str
    num_records: int
    num_tokens: int
    notices: str = ""

    def row(self) -> dict[str, str]:
        """A row for a chain that carries nothing but this."""
        return {"part": "", "tasks": "{}", "done": json.dumps([asdict(self)])}


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A part that a dataflow wants to have once more before it is done.

    Attributes:
        stage: the stage.
        tasks: the tasks of the part's row, as they came.
    """

    stage: str
    tasks: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A part that its stage leaves undone, because it was told to spend no more on this run.

    Attributes:
        stage: the stage.
        why: what it has run out of.
    """

    stage: str
    why: str


Result = PartDone | Advance | Left
"""What a run is told."""


def leave(row: Mapping[str, str], stage: str, why: str) -> dict[str, str]:
    """A chain's row that no stage does anything with any more in this run."""
    left = Left(stage=stage, why=why)
    return {**row, "tasks": "{}", "done": json.dumps([*json.loads(row["done"]), asdict(left)])}


def send_again(row: Mapping[str, str], stage: str) -> dict[str, str]:
    """A chain's row that the stages behind leave alone and that comes back to `stage`."""
    again = Again(stage=stage, tasks=row["tasks"])
    return {**row, "tasks": "{}", "done": json.dumps([*json.loads(row["done"]), asdict(again)])}


def add_result(row: Mapping[str, str], done: PartDone) -> dict[str, str]:
    """A chain's row with what one stage made of its part.

    Args:
        row: `part`, `tasks` (JSON: the task by stage) and `done` (JSON: what became of it).
        done: the stage's result. A part that failed has no tasks any more.
    """
    return {
        "part": row["part"],
        "tasks": "{}" if done.error else row["tasks"],
        "done": json.dumps([*json.loads(row["done"]), asdict(done)]),
    }


def task_of(row: Mapping[str, str], stage: str) -> Task | None:
    """What a stage has to do for the part of a chain's row; None where there is nothing."""
    task = json.loads(row["tasks"]).get(stage)
    return Task.from_json(task) if task else None


def results_of(row: Mapping[str, str]) -> Iterator[Result]:
    """What the stages have reported on a chain's row."""
    for result in json.loads(row["done"]):
        if "part" in result:
            yield PartDone(**result)
        elif "why" in result:
            yield Left(**result)
        elif "tasks" not in result:
            yield Advance(**result)


def again_of(row: Mapping[str, str]) -> dict[str, str] | None:
    """The row with which a part goes through its dataflow once more; None where it need not."""
    for result in json.loads(row["done"]):
        if "tasks" in result:
            return {"part": row["part"], "tasks": result["tasks"], "done": "[]"}
    return None


class CommittingWorker:
    """A stage's worker with the commit behind it: what Ray Data's actors are made of."""

    def __init__(self, spec: StageSpec, models: Mapping[str, Path], context: RunContext) -> None:
        self._spec = spec
        self._context = context
        self._cannot_work: UserError | None = None
        try:
            local = {name: local_copy(models[name]) for name in spec.models}
            self._worker = load(spec.worker)(spec.settings, local)
        except Exception as error:
            # Raised by the first call: Ray loses the cause of what an actor dies of while it loads.
            self._cannot_work = as_user_error(error)
            if self._cannot_work is None:
                raise

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        """Do this stage's task of a part, if there is one, and pass the part on.

        Raises:
            UserError: what the disk or the store says, in words. Ray Data adds a sentence of its
                own to the arguments of an error, and an `OSError` takes that for its file.
        """
        task = task_of(row, self._spec.name)
        if not task:
            return row
        try:
            return add_result(row, self.do(task))
        except Exception as error:
            raise as_user_error(error) or error from error

    def do(self, task: Task) -> PartDone:
        """Do one task until it is committed or its tries are used up."""
        if self._cannot_work is not None:
            raise self._cannot_work
        return patiently(lambda: self._persevere(task))

    def _persevere(self, task: Task) -> PartDone:
        stage, part = self._spec.name, task.work.part
        attempts = Attempts.at(self._context.attempts / stage / f"{part}.json", self._context.run)

        def once(quarantined: Mapping[str, str], at: Callable[[tuple[str, ...]], None]) -> PartDone:
            started = time.monotonic()
            output = self._worker(replace(task.work, quarantined=set(quarantined), at=at))
            return self._commit(task, output, quarantined, started)

        try:
            done = persevere(attempts, self._context.timeout_s, once)
        except PartFailedError as error:
            return PartDone(
                stage=stage, part=part, seconds=0, num_rows=0, num_rejects=0, error=str(error)
            )
        attempts.finish()
        return done

    def _commit(
        self, task: Task, output: Output, quarantined: Mapping[str, str], started: float
    ) -> PartDone:
        """Write what a try gave. The rejects go first: the table's file is the commit.

        The rejects take the place of those that a try left which died before its commit.
        """
        stage = self._spec.name
        rejects = as_table(output.rejects, REJECTS)
        reason = f"{stage}-quarantined"
        given_up = [
            reject(record_id=record, stage=stage, reason=reason, detail=story)
            for record, story in sorted(quarantined.items())
        ]
        rejects = pa.concat_tables([rejects, as_table(given_up, REJECTS)])
        if not task.output.exists():  # another worker, given up but not dead, may have been faster
            write_table(task.rejects, rejects, REJECTS)
            create_table(task.output, output.rows, self._spec.schema)
        return PartDone(
            stage=stage,
            part=task.work.part,
            seconds=time.monotonic() - started,
            num_rows=len(output.rows),
            num_rejects=len(rejects),
        )


def do_part(
    specs: Sequence[StageSpec],
    models: Mapping[str, Path],
    context: RunContext,
    row: dict[str, str],
) -> dict[str, str]:
    """Do all the stages' tasks of a part in this process; see `CommittingWorker`."""
    for spec in specs:
        if task_of(row, spec.name):
            row = CommittingWorker(spec, models, context)(row)
    return row
