"""A corpus of ids and a stage over it, for the tests of the runner."""

from __future__ import annotations

from pathlib import Path

from pipeline.engine.corpus import Corpus, PartFiles
from pipeline.engine.parts import Part
from pipeline.engine.schemas import DUPLICATES, SELECTION
from pipeline.engine.stage import StageSpec
from pipeline.engine.tables import read_table, write_table
from tests.faults.workers import BadSettings


def corpus_of(root: Path, *, num_parts: int = 4, rows_per_part: int = 5) -> Corpus:
    """Parts of a `selection` with nothing but ids: `0-0`, `0-1`, …"""
    parts = [
        Part.of("ids", {"start": start}, num_records=rows_per_part) for start in range(num_parts)
    ]
    corpus = Corpus(root=root, recipe={}, parts=parts)
    corpus.tables["selection"] = PartFiles(root / "tables" / "selection")
    filled = dict.fromkeys(SELECTION.names, "-") | {"weight": None}
    for number, part in enumerate(parts):
        rows = [filled | {"record_id": f"{number}-{row}"} for row in range(rows_per_part)]
        corpus.tables["selection"].place(part.name, "given")
        write_table(corpus.tables["selection"][part.name], rows, SELECTION)
    return corpus


def stage(worker: str, *, name: str = "check", **settings: object) -> StageSpec:
    """A stage whose worker is one of `tests.faults.workers`."""
    return StageSpec(
        name=name,
        version=1,
        reads=("selection",),
        writes="duplicates",
        schema=DUPLICATES,
        settings=BadSettings(**settings),
        worker=f"tests.faults.workers:{worker}",
    )


def committed_ids(corpus: Corpus) -> list[str]:
    """The ids in the stage's committed files, sorted."""
    files = corpus.files("duplicates")
    return sorted(x for path in files for x in read_table(path)["record_id"].to_pylist())


def rejects_of(corpus: Corpus) -> list[dict[str, object]]:
    """The rows of the stage's committed rejects."""
    return [row for path in corpus.reject_files() for row in read_table(path).to_pylist()]


ALL = [f"{part}-{row}" for part in range(4) for row in range(5)]
