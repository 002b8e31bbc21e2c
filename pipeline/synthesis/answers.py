"""The answers of parts that are under way, kept as they come: a kill costs only those in flight.

`CORPUS/answers/FINGERPRINT/PART/` holds one committed file for each batch of answers. When the last
answer of a part is there, they become the part of the table `answers`, and the folder goes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.engine.corpus import Task
from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.schemas import ANSWERS, REJECTS
from pipeline.engine.storage import names_in, remove
from pipeline.engine.tables import read_table, write_table

FOLDER = "answers"

Row = dict[str, Any]


def keep(task: Task, answers: Sequence[Row]) -> None:
    """Commit a batch of a part's answers. One that comes a second time replaces itself."""
    name = fingerprint(answers=[(row["record_id"], row["attempt"]) for row in answers])
    write_table(_folder(task) / f"{name}.parquet", answers, ANSWERS)


def kept(task: Task) -> dict[str, list[Row]]:
    """The answers that a part has so far: for each record, its attempts in their order."""
    folder = _folder(task)
    found: dict[tuple[str, int], Row] = {}
    for name in sorted(names_in(folder)):
        for row in read_table(folder / name).to_pylist():
            found[row["record_id"], row["attempt"]] = row
    answers = defaultdict(list)
    for (record_id, _), row in sorted(found.items()):
        answers[record_id].append(row)
    return dict(answers)


def commit(
    task: Task, record_ids: Sequence[str], answers: Mapping[str, Sequence[Mapping[str, Any]]]
) -> int:
    """Commit a part of the table `answers`, in the order of its records; returns its rows."""
    rows = [row for record_id in record_ids for row in answers.get(record_id, ())]
    write_table(task.rejects, [], REJECTS)
    write_table(task.output, rows, ANSWERS)
    remove(_folder(task))
    return len(rows)


def _folder(task: Task) -> Path:
    """Beside `tables/`: a part's file there is `tables/answers/FINGERPRINT/PART.parquet`."""
    output = task.output
    return output.parents[3] / FOLDER / output.parent.name / output.stem
