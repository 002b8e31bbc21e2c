"""What a stage is: a spec that is cheap to import, and a worker that does one part.

A worker is a plain class. `__init__(settings, models)` loads what it needs once per process;
`__call__(work) -> Output` is pure: the same work gives the same rows. Ray Data's `map` wants just
that, and a `for` loop in a test does as well. Committing, timing, counting and retrying are the
runner's alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.schemas import TABLES
from pipeline.errors import UserError
from pipeline.settings import Settings

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

Row = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one worker of a stage needs."""

    num_cpus: float = 1
    num_gpus: float = 0
    memory_bytes: int | None = None
    python: Path | None = None
    """Interpreter of the environment that holds what the stage needs; None is this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One part for one stage: where its inputs lie, and what the part is.

    Attributes:
        part: name of the part.
        inputs: for each table that the stage reads, the committed file of this part.
        extra: JSON values that only this part has (the slice of the source).
        fingerprint: of the rows that the stage is to give, by what they depend on.
        quarantined: records that killed their worker each time; they must not be touched.
        at: called with the ids of the records that are about to be looked at, so that a death, an
            exception or a hang can be told to be theirs.
    """

    part: str
    inputs: Mapping[str, Path] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    quarantined: Collection[str] = ()
    at: Callable[[tuple[str, ...]], None] = lambda _records: None

    def read(self, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """This part of a table that the stage reads, without records in quarantine."""
        from pipeline.engine.tables import read_table

        if not self.quarantined or "record_id" not in TABLES[table].names:
            return read_table(self.inputs[table], columns)
        rows = read_table(self.inputs[table])
        kept = rows.filter(~pc.field("record_id").isin(list(self.quarantined)))
        return kept.select(columns or kept.column_names)

    def each(self, records: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """The given rows one by one, each announced as the record in hand, and at last all of them.

        What fails while nothing is looked at (a model, on what has been) is so blamed on no single
        one.
        """
        seen = []
        for record in records:
            seen.append(record["record_id"])
            self.at((record["record_id"],))
            yield record
        self.at(tuple(seen))


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a worker gives for one part: rows of the stage's table, and what it left out."""

    rows: pa.Table | Sequence[Row]
    rejects: pa.Table | Sequence[Row] = ()


Worker = Callable[[Work], Output]


class Dataflow(Protocol):
    """A stage's steps in Ray Data, made with its settings and models as a worker is.

    For a stage that something expensive serves, which must be kept busy across parts (an LLM's
    engine).
    """

    def needs(self, work: Work) -> bool:
        """Whether a part has rows for it; where no part has any, the stage's worker does them."""

    def explain(self, error: BaseException) -> UserError | None:
        """What a person can do about an error that ended its steps; None where it is unknown."""

    def __call__(self, dataset: Any, num_rows: int) -> Any:  # noqa: ANN401 - a Ray dataset
        """The dataset of so many of a chain's rows (`worker.py`) with this stage's steps added.

        Rows that have no task for this stage must come through unchanged.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec:
    """A pure function from a part of some tables to the same part of another.

    Attributes:
        name: the stage's name in events, rejects and on the command line.
        version: raised when the code changes what comes out.
        reads: names of the tables that it reads.
        writes: name of the table that it fills.
        schema: the schema of that table.
        settings: its section of the recipe; part of the fingerprint.
        models: names of the fitted models that it loads; their weights are part of the fingerprint.
        worker: `module:Class`, imported only where the stage runs.
        dataflow: `module:Class` of type `Dataflow`, which does the parts that need it; through Ray.
        resources: what one worker needs, or all of the dataflow.
        is_light: it takes less time than Ray's start, unless there are very many records.
    """

    name: str
    version: int
    reads: tuple[str, ...]
    writes: str
    schema: pa.Schema
    settings: Settings
    models: tuple[str, ...] = ()
    worker: str
    dataflow: str | None = None
    resources: Resources = Resources()
    is_light: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a fit has come: `done` of `total` steps, and a few figures worth showing."""

    done: int
    total: int
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitInputs:
    """What a fit or a corpus step reads: the files of each table's parts, and models' folders."""

    tables: Mapping[str, Sequence[Path]]
    models: Mapping[str, Path]
    meanings: Mapping[str, str] = field(default_factory=dict)
    """Of each table that a fit follows: a hash of what decides it, its records apart."""


Fit = Callable[[Any, FitInputs, Path], Iterator[Progress]]
"""`fit(settings, inputs, folder)`: a generator that fills `folder` and says how far it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSpec:
    """A model that is fitted on the corpus once and then pinned: new data does not move it.

    Attributes:
        name: folder under `models/`.
        version: raised when the code changes what comes out.
        reads: names of the tables that it is fitted on.
        models: names of the fitted models that it needs.
        follows: names of the tables that it must not outlive: once other settings or models make
            them (other scores, not more records), it is fitted again.
        settings: its section of the recipe; part of the fingerprint.
        fit: `module:function` of type `Fit`, imported only where it runs.
        resources: what the fit needs.
        is_light: it takes less time than Ray's start, unless there are very many records.
    """

    name: str
    version: int
    reads: tuple[str, ...]
    models: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()
    settings: Settings
    fit: str
    resources: Resources = Resources()
    is_light: bool = False


CorpusFunction = Callable[[Any, FitInputs], "DuckDBPyRelation"]
"""`function(settings, inputs)`: the rows of a table and the `part` of each, in any order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusStepSpec:
    """A function over the whole corpus (dedup); its result is cut by part again.

    What a part is given is named by its own content, so that the stages below redo only the parts
    for which the answer has changed.

    Attributes:
        name: the step's name in events.
        version: raised when the code changes what comes out.
        reads: names of the tables that it reads.
        writes: name of the table that it fills.
        settings: its section of the recipe; part of the fingerprint.
        models: names of the fitted models that it loads; their files are part of the fingerprint.
        function: `module:function` of type `CorpusFunction`, imported only where it runs.
        resources: what it needs.
    """

    name: str
    version: int
    reads: tuple[str, ...]
    writes: str
    settings: Settings
    models: tuple[str, ...] = ()
    function: str
    resources: Resources = Resources()


Step = StageSpec | FitSpec | CorpusStepSpec


def load(target: str) -> Any:  # noqa: ANN401 - a class or a function
    """The object that `module:name` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
