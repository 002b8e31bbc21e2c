"""A corpus: which committed file of which table is live, and what is still missing.

Fingerprints are resolved step by step in the order of the flow, because a step below a fitted model
needs the hash of its weights, which exist only when it has been fitted. So `Corpus` grows: each
`resolve_*` adds what one step gives, and says what has to be done for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.compute as pc

from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.parts import Part
from pipeline.engine.schemas import TABLES
from pipeline.engine.stage import CorpusStepSpec, FitInputs, FitSpec, StageSpec, Work
from pipeline.engine.storage import commit_json, files_by_folder, names_in, read_json, to_path
from pipeline.engine.tables import connect, part_path, write_table

MODEL_FILE = "model.json"
MANIFEST_FILE = "manifest.json"
"""What publishes a folder of shards; `tokenizer_cache.manifest` writes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One part that a stage has to do: the work, and where its output is committed."""

    work: Work
    output: Path
    rejects: Path

    def to_json(self) -> str:
        """The task as text: Ray Data would pickle an object."""
        return json.dumps(
            {
                "part": self.work.part,
                "inputs": {table: str(path) for table, path in self.work.inputs.items()},
                "extra": self.work.extra,
                "output": str(self.output),
                "rejects": str(self.rejects),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Task:
        """The task that `to_json` wrote."""
        value = json.loads(text)
        inputs = {table: to_path(path) for table, path in value["inputs"].items()}
        return cls(
            work=Work(part=value["part"], inputs=inputs, extra=value["extra"]),
            output=to_path(value["output"]),
            rejects=to_path(value["rejects"]),
        )


@dataclass(kw_only=True)
class Corpus:
    """The live files of a corpus, as far as its steps have been resolved.

    A table's folder also holds parts of earlier runs; these mappings name only those of now.

    Attributes:
        root: the corpus's folder.
        recipe: the resolved recipe, as JSON.
        parts: all parts of the sources, in their order.
        tables: for each table and part, where the part is (or will be) committed.
        rejects: the same for each stage's rejects.
        models: for each fitted model, its folder.
        shards: the folder of the shards; None before it is known.
    """

    root: Path
    recipe: Mapping[str, Any]
    parts: Sequence[Part]
    tables: dict[str, dict[str, Path]] = field(default_factory=dict)
    rejects: dict[str, dict[str, Path]] = field(default_factory=dict)
    models: dict[str, Path] = field(default_factory=dict)
    shards: Path | None = None

    def resolve_stage(
        self,
        spec: StageSpec,
        extra: Mapping[str, Mapping[str, Any]] | None = None,
        published: Mapping[str, str] | None = None,
    ) -> list[Task]:
        """Place a stage's table and return the tasks of the parts that are not committed yet.

        Args:
            spec: the stage; the tables and models that it reads must have been resolved.
            extra: JSON values that only one part has. They decide its output, so they are in its
                fingerprint, except `part`, `source` and `folder`, which only say where.
            published: for a stage that writes files beside its table under names that stay: for
                each part that has such files, the fingerprint that they were published with. A
                committed part whose files are of another is done again.
        """
        common = fingerprint(
            stage=spec.name,
            version=spec.version,
            settings=spec.settings.model_dump(mode="json"),
            models={name: self.model_hash(name) for name in spec.models},
        )
        written = self.tables.setdefault(spec.writes, {})
        refused = self.rejects.setdefault(spec.name, {})
        tasks = []
        committed: dict[Path, set[str]] = {}
        for part in self.parts:
            own = dict((extra or {}).get(part.name, {}))
            inputs = {table: self.tables[table][part.name] for table in spec.reads}
            print_ = fingerprint(
                common=common,
                inputs={table: path.parent.name for table, path in inputs.items()},
                extra={k: v for k, v in own.items() if k not in {"part", "source", "folder"}},
            )
            folder = self.root / "tables" / spec.writes / print_
            path = written[part.name] = part_path(folder, part.name)
            refused[part.name] = part_path(
                self.root / "tables" / f"rejects-{spec.name}" / print_, part.name
            )
            if folder not in committed:
                committed[folder] = names_in(folder)
            is_overwritten = (published or {}).get(part.name, print_) != print_
            if path.name not in committed[folder] or is_overwritten:
                tasks.append(
                    Task(
                        work=Work(part=part.name, inputs=inputs, extra=own),
                        output=path,
                        rejects=refused[part.name],
                    )
                )
        return tasks

    def resolve_fit(self, spec: FitSpec) -> bool:
        """Place a fitted model and return whether it has to be fitted.

        Its folder's name hashes what the recipe says of it and the models that it needs, not the
        data: new data does not move it.
        """
        print_ = fingerprint(
            fit=spec.name,
            version=spec.version,
            settings=spec.settings.model_dump(mode="json"),
            models={name: self.model_hash(name) for name in spec.models},
        )
        self.models[spec.name] = self.root / "models" / spec.name / print_
        return not (self.models[spec.name] / MODEL_FILE).exists()

    def fit_inputs(self, spec: FitSpec) -> FitInputs:
        """The files that a fit reads."""
        return FitInputs(
            tables={table: list(self.tables[table].values()) for table in spec.reads},
            models={name: self.models[name] for name in spec.models},
        )

    def model_hash(self, name: str) -> str:
        """The hash of a fitted model's files."""
        value: str = read_json(self.models[name] / MODEL_FILE)["content"]
        return value

    def resolve_corpus_step(self, spec: CorpusStepSpec) -> bool:
        """Place a corpus step's table and return whether the step has to be done."""
        index = self._index(spec)
        if not index.exists():
            return True
        prints = read_json(index)
        self.tables[spec.writes] = {
            part.name: part_path(self.root / "tables" / spec.writes / prints[part.name], part.name)
            for part in self.parts
        }
        return False

    def do_corpus_step(self, spec: CorpusStepSpec) -> int:
        """Run a corpus step, commit what each part is given, and return the number of rows."""
        schema, prints, num_rows = TABLES[spec.writes], {}, 0
        rows = self.query(spec.sql).order(", ".join(["part", *schema.names]))
        given = rows.to_arrow_table()
        for part in self.parts:
            own = given.filter(pc.field("part") == part.name).select(schema.names)
            num_rows += own.num_rows
            prints[part.name] = fingerprint(rows=own.to_pylist())
            folder = self.root / "tables" / spec.writes / prints[part.name]
            if not part_path(folder, part.name).exists():
                write_table(part_path(folder, part.name), own, schema)
        commit_json(self._index(spec), prints)
        return num_rows

    def _index(self, spec: CorpusStepSpec) -> Path:
        """Where the step says which print each part has; named by all that the step reads."""
        inputs = {
            table: [f"{path.parent.name}/{path.name}" for path in self.tables[table].values()]
            for table in spec.reads
        }
        key = fingerprint(step=spec.name, version=spec.version, sql=spec.sql, inputs=inputs)
        return self.root / "tables" / spec.writes / f"index-{key}.json"

    def files(self, table: str) -> list[Path]:
        """The committed files of a table's live parts."""
        return _existing(self.tables.get(table, {}))

    def reject_files(self) -> list[Path]:
        """The committed files of all stages' live rejects."""
        return [path for stage in self.rejects.values() for path in _existing(stage)]

    def published_shards(self) -> list[dict[str, Any]] | None:
        """The shards as their manifest lists them; None before it is published."""
        path = self.shards / MANIFEST_FILE if self.shards else None
        if path is None or not path.exists():
            return None
        shards: list[dict[str, Any]] = read_json(path)["shards"]
        return shards

    def query(self, sql: str) -> duckdb.DuckDBPyRelation:
        """Run SQL over the live tables: those resolved and committed, by name, and `rejects`.

        A table with no committed part is empty, with its schema.
        """
        named = {table: self.files(table) for table in TABLES if table != "rejects"}
        return connect({**named, "rejects": self.reject_files()}).sql(sql)


def _existing(paths: Mapping[str, Path]) -> list[Path]:
    if not paths:
        return []
    parent = next(iter(paths.values())).parent.parent
    names = files_by_folder(parent, {path.parent.name for path in paths.values()})
    return [path for path in paths.values() if path.name in names[path.parent.name]]
