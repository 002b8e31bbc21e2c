"""The answers of parts that are under way, kept as they come: a kill costs only those in flight.

`CORPUS/answers/FINGERPRINT/PART/` holds one committed file for each batch of answers. When the last
answer of a part is there, they become the part of the table `answers`, and the folder goes.

`CORPUS/answers/FINGERPRINT/arms.json` counts what the critics took, for the allocation of a budget.
It is a hint: a kill may lose a part's count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.engine.corpus import Task
from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.schemas import REJECTS
from pipeline.engine.storage import commit_json, names_in, read_json, remove
from pipeline.engine.synthesis_schemas import ANSWERS
from pipeline.engine.tables import create_table, read_table, write_table
from pipeline.synthesis.allocation import Chances, Counts, chances
from pipeline.synthesis.budget import Key, key_of
from pipeline.synthesis.judge import turn
from pipeline.synthesis.settings import SynthesisSettings

FOLDER = "answers"
ARMS_FILE = "arms.json"

Row = dict[str, Any]


def keep(task: Task, answers: Sequence[Row]) -> None:
    """Commit a batch of a part's answers. One that comes a second time replaces itself."""
    name = fingerprint(answers=[key_of(row) for row in answers])
    write_table(_folder(task) / f"{name}.parquet", answers, ANSWERS)


def kept(task: Task) -> dict[str, list[Row]]:
    """The answers that a part has so far: for each record, in the order of their turns."""
    folder = _folder(task)
    found: dict[Key, Row] = {}
    for name in sorted(names_in(folder)):
        if name.endswith(".parquet"):
            found |= {key_of(row): row for row in read_table(folder / name).to_pylist()}
    answers = defaultdict(list)
    for row in sorted(found.values(), key=turn):
        answers[row["record_id"]].append(row)
    return dict(answers)


def commit(
    task: Task, record_ids: Sequence[str], answers: Mapping[str, Sequence[Mapping[str, Any]]]
) -> int:
    """Commit a part of the table `answers`, in the order of its records; returns its rows."""
    rows = [row for record_id in record_ids for row in answers.get(record_id, ())]
    write_table(task.rejects, [], REJECTS)
    create_table(task.output, rows, ANSWERS)
    remove(_folder(task))
    return len(rows)


def pinned_chances(task: Task, attempt: int, *, settings: SynthesisSettings) -> Chances:
    """The chances by which the texts of an attempt are chosen in a part.

    They are written down when they are first asked for, so that a run that goes on chooses the
    same. Without a budget every text is asked for.
    """
    if not settings.has_budget:
        return {}
    path = _folder(task) / f"chances-{attempt}.json"
    if not path.exists():
        commit_json(path, chances(_counts(task), settings.min_chance))
    found: Chances = read_json(path)
    return found


def count(task: Task, more: Counts) -> None:
    """Add to what has been asked for and taken."""
    counts = dict(_counts(task))
    for arm, (asked, taken) in more.items():
        before = counts.get(arm, (0, 0))
        counts[arm] = (before[0] + asked, before[1] + taken)
    commit_json(_folder(task).parent / ARMS_FILE, counts)


def _counts(task: Task) -> Counts:
    path = _folder(task).parent / ARMS_FILE
    return read_json(path) if path.exists() else {}


def _folder(task: Task) -> Path:
    """Beside `tables/`: a part's file there is `tables/answers/FINGERPRINT/PART.parquet`."""
    output = task.output
    return output.parents[3] / FOLDER / output.parent.name / output.stem
