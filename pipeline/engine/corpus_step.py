"""A step over the whole corpus: a function of some tables, its result cut by part again.

What each part is given is named by its own content, so that the stages below redo only the parts
for which the answer has changed. An index file, named by all that the step reads, says which print
each part got: if it is there, and the files that it names are, the step is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pipeline.engine.corpus import Corpus, PartFiles
from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.schemas import TABLES
from pipeline.engine.stage import CorpusFunction, CorpusStepSpec, FitInputs, load
from pipeline.engine.storage import commit_json, read_json
from pipeline.engine.tables import create_table

_ROWS_PER_BATCH = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusStepTask:
    """What a corpus step has to do: which files it reads, and where it writes."""

    spec: CorpusStepSpec
    inputs: FitInputs
    parts: Sequence[str]
    folder: Path
    index: Path


def resolve_corpus_step(corpus: Corpus, spec: CorpusStepSpec) -> CorpusStepTask | None:
    """Place a corpus step's table; returns what has to be done first, or None when it is done."""
    inputs = {
        # Sorted: the answer does not depend on the order of the parts.
        table: sorted(f"{print_}/{part}" for part, print_ in corpus.tables[table].prints.items())
        for table in spec.reads
    }
    decides = {
        "version": spec.version,
        "settings": spec.settings.model_dump(mode="json"),
        "models": {name: corpus.model_hash(name) for name in spec.models},
    }
    corpus.decided[spec.name] = decides
    corpus.meanings[spec.writes] = fingerprint(**decides)
    folder = corpus.root / "tables" / spec.writes
    index = folder / f"index-{fingerprint(step=spec.name, inputs=inputs, **decides)}.json"
    names = [part.name for part in corpus.parts]
    placed = PartFiles(folder)
    prints = _read_index(index)
    if prints.keys() >= set(names):
        for name in names:
            placed.place(name, prints[name])
        # A file may be gone: damaged and removed by a repair, or lost.
        if placed.committed() == set(names):
            corpus.tables[spec.writes] = placed
            return None
    return CorpusStepTask(
        spec=spec,
        inputs=FitInputs(
            tables={table: corpus.files(table) for table in spec.reads},
            models={name: corpus.models[name] for name in spec.models},
        ),
        parts=names,
        folder=folder,
        index=index,
    )


def do_corpus_step(task: CorpusStepTask) -> int:
    """Run a corpus step, commit what each part is given, and return the number of rows.

    DuckDB sorts the answer by part and spills to the disk; the rows are taken out in batches, so
    that what is held at a time is one part's answer.
    """
    schema = TABLES[task.spec.writes]
    function: CorpusFunction = load(task.spec.function)
    rows = function(task.spec.settings, task.inputs).order(", ".join(["part", *schema.names]))
    batches = rows.to_arrow_reader(_ROWS_PER_BATCH)
    answers = (row for batch in batches for row in batch.to_pylist())
    placed = PartFiles(task.folder)
    num_rows = 0
    for part in task.parts:
        placed.place(part, fingerprint(rows=[]))
    done = placed.committed()
    for part, given in groupby(answers, key=lambda row: row.pop("part")):
        own = list(given)
        num_rows += len(own)
        placed.place(part, fingerprint(rows=own))
        if not placed[part].exists():
            create_table(placed[part], own, schema)
        done.add(part)
    for part in task.parts:
        if part not in done:
            create_table(placed[part], [], schema)
    commit_json(task.index, dict(sorted(placed.prints.items())))
    return num_rows


def _read_index(path: Path) -> dict[str, str]:
    """Which print each part got; empty where there is no index, or a damaged one."""
    try:
        prints: dict[str, str] = read_json(path)
    except (FileNotFoundError, ValueError):
        return {}
    return prints
