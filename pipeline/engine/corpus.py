"""A corpus: which committed file of which table is live, and what is still missing.

Fingerprints are resolved step by step in the order of the flow, because a step below a fitted model
needs the hash of its weights, which exist only when it has been fitted. So `Corpus` grows: each
`resolve_*` adds what one step gives, and says what has to be done for it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.parts import Part
from pipeline.engine.schemas import TABLES
from pipeline.engine.stage import FitInputs, FitSpec, StageSpec, Work
from pipeline.engine.storage import files_by_folder, names_in, read_json, to_path
from pipeline.engine.tables import DamagedFile, connect, part_path

MODEL_FILE = "model.json"
REMOVED_FILE = "removed.json"
"""Names the files that a forget has taken out of a model's folder, each with its SHA-256."""
MANIFEST_FILE = "manifest.json"
"""What publishes a folder of shards; `tokenizer_cache.publishing` writes it."""

_SAYS_WHERE = {"part", "source", "folder", "forgotten", "corpus"}
"""Keys of a part's `extra` that say where to read and write, not what: no part of a fingerprint."""


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
                "fingerprint": self.work.fingerprint,
                "output": str(self.output),
                "rejects": str(self.rejects),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Task:
        """The task that `to_json` wrote."""
        value = json.loads(text)
        work = Work(
            part=value["part"],
            inputs={table: to_path(path) for table, path in value["inputs"].items()},
            extra=value["extra"],
            fingerprint=value["fingerprint"],
        )
        return cls(
            work=work,
            output=to_path(value["output"]),
            rejects=to_path(value["rejects"]),
        )


@dataclass(slots=True)
class PartFiles(Mapping[str, Path]):
    """Where each part of a table is (or will be) committed: a path for each part's name.

    Holds one shared word a part and makes the paths when they are asked for: with tens of thousands
    of parts, paths for every table would be most of the driver's memory.
    """

    folder: Path
    prints: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, part: str) -> Path:
        return part_path(self.folder / self.prints[part], part)

    def __iter__(self) -> Iterator[str]:
        return iter(self.prints)

    def __len__(self) -> int:
        return len(self.prints)

    def place(self, part: str, print_: str) -> None:
        """Say which fingerprint a part has."""
        self.prints[part] = sys.intern(print_)

    def fingerprint(self) -> str:
        """A hash of which part has which fingerprint."""
        return fingerprint(prints=self.prints)

    def committed(self) -> set[str]:
        """Names of the parts whose file is there; one listing for each fingerprint."""
        files = files_by_folder(self.folder, set(self.prints.values()))
        return {part for part, print_ in self.prints.items() if f"{part}.parquet" in files[print_]}


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
        decided: for each step, what decided its output, in words that a person can compare.
        meanings: for each table that a step writes, a hash of that: with the same one, two parts
            differ only in their records.
    """

    root: Path
    recipe: Mapping[str, Any]
    parts: Sequence[Part]
    tables: dict[str, PartFiles] = field(default_factory=dict)
    rejects: dict[str, PartFiles] = field(default_factory=dict)
    models: dict[str, Path] = field(default_factory=dict)
    shards: Path | None = None
    decided: dict[str, dict[str, Any]] = field(default_factory=dict)
    meanings: dict[str, str] = field(default_factory=dict)

    def resolve_stage(
        self, spec: StageSpec, extra: Mapping[str, Mapping[str, Any]] | None = None
    ) -> list[Task]:
        """Place a stage's table and return the tasks of the parts that are not committed yet.

        Args:
            spec: the stage; the tables and models that it reads must have been resolved.
            extra: JSON values that only one part has. They decide its output, so they are in its
                fingerprint, except those that only say where.
        """
        decides = {
            "version": spec.version,
            "settings": spec.settings.model_dump(mode="json"),
            "models": {name: self.model_hash(name) for name in spec.models},
        }
        common = fingerprint(stage=spec.name, **decides)
        written = PartFiles(self.root / "tables" / spec.writes)
        refused = PartFiles(self.root / "tables" / f"rejects-{spec.name}")
        self.tables[spec.writes], self.rejects[spec.name] = written, refused
        self.decided[spec.name] = decides
        extra = extra or {}

        @cache  # most parts have the same inputs: a run over many parts hashes few times
        def print_of(inputs: tuple[str, ...], own: str) -> str:
            named = dict(zip(spec.reads, inputs, strict=True))
            return fingerprint(common=common, inputs=named, extra=json.loads(own))

        for part in self.parts:
            inputs = tuple(self.tables[table].prints[part.name] for table in spec.reads)
            own = {k: v for k, v in extra.get(part.name, {}).items() if k not in _SAYS_WHERE}
            print_ = print_of(inputs, json.dumps(own, sort_keys=True))
            written.place(part.name, print_)
            refused.place(part.name, print_)
            decides.update(own)
        self.meanings[spec.writes] = fingerprint(**decides)
        done = written.committed()
        missing = [part.name for part in self.parts if part.name not in done]
        return [self.task(spec, name, extra) for name in missing]

    def task(self, spec: StageSpec, part: str, extra: Mapping[str, Mapping[str, Any]]) -> Task:
        """What a stage has to do for one part."""
        return Task(
            work=Work(
                part=part,
                inputs={table: self.tables[table][part] for table in spec.reads},
                extra=dict(extra.get(part, {})),
                fingerprint=self.tables[spec.writes].prints[part],
            ),
            output=self.tables[spec.writes][part],
            rejects=self.rejects[spec.name][part],
        )

    def resolve_fit(self, spec: FitSpec, *, refit: bool = False) -> bool:
        """Place a fitted model and return whether it has to be fitted.

        Its folder's name hashes what the recipe says of it and the models that it needs, not the
        data: new data does not move it. A refit adds a generation, and the highest one that was
        fitted on tables of today's meaning is the one that counts.
        """
        decides = {
            "version": spec.version,
            "settings": spec.settings.model_dump(mode="json"),
            "models": {name: self.model_hash(name) for name in spec.models},
        }
        print_ = fingerprint(fit=spec.name, **decides)
        self.decided[spec.name] = decides
        folder = self.root / "models" / spec.name
        generations = [
            int(name.removeprefix(print_).removeprefix("-") or 1)
            for name in names_in(folder)
            if name.startswith(print_) and (folder / name / MODEL_FILE).exists()
        ]

        def place(number: int) -> Path:
            return folder / (print_ if number == 1 else f"{print_}-{number}")

        highest_first = sorted(generations, reverse=True)
        valid = next((each for each in highest_first if self._follows(spec, place(each))), None)
        is_new = refit or valid is None
        self.models[spec.name] = place(max(generations, default=0) + 1 if is_new else valid or 1)
        return is_new

    def _follows(self, spec: FitSpec, model: Path) -> bool:
        """Whether the tables that a fit follows still mean what they did when `model` was fitted.

        A model of an earlier version of this code does not say what they meant. It counts if one
        of the files that it was fitted on is still live, or if it was fitted on none.
        """
        if not spec.follows:
            return True
        told = read_json(model / MODEL_FILE)
        if "meanings" in told:
            return all(told["meanings"].get(name) == self.meanings[name] for name in spec.follows)
        for table in spec.follows:
            live = self.tables[table].prints.items()
            files = set(told["fitted_on"].get(table, ()))
            if files and files.isdisjoint(f"{print_}/{part}.parquet" for part, print_ in live):
                return False
        return True

    def fit_inputs(self, spec: FitSpec) -> FitInputs:
        """The files that a fit reads."""
        return FitInputs(
            tables={table: list(self.tables[table].values()) for table in spec.reads},
            models={name: self.models[name] for name in spec.models},
            meanings={name: self.meanings[name] for name in spec.follows},
        )

    def model_hash(self, name: str) -> str:
        """The hash of a fitted model's files.

        Raises:
            DamagedFile: when its description cannot be read.
        """
        path = self.models[name] / MODEL_FILE
        try:
            value: str = read_json(path)["content"]
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedFile(str(path)) from error
        return value

    def files(self, table: str) -> list[Path]:
        """The committed files of a table's live parts."""
        return _existing(self.tables.get(table))

    def reject_files(self) -> list[Path]:
        """The committed files of all stages' live rejects."""
        return [path for stage in self.rejects.values() for path in _existing(stage)]

    def manifest(self) -> dict[str, Any] | None:
        """The manifest of the shards, as JSON; None before it is published."""
        path = self.shards / MANIFEST_FILE if self.shards else None
        if path is None or not path.exists():
            return None
        value: dict[str, Any] = read_json(path)
        return value

    def published_shards(self) -> list[dict[str, Any]] | None:
        """The shards as their manifest lists them; None before it is published.

        Those of a part that has changed since are of its earlier `samples`.
        """
        manifest = self.manifest()
        return None if manifest is None else list(manifest["shards"])

    def shards_of_now(self) -> dict[tuple[str, str], str]:
        """The file of each published shard of the live `samples`, by its part and name there."""
        prints = self.tables["samples"].prints if "samples" in self.tables else {}
        return {
            (shard["part"], shard["name"]): shard["file"]
            for shard in self.published_shards() or []
            if prints.get(shard["part"]) == shard["samples"]
        }

    def query(self, sql: str) -> duckdb.DuckDBPyRelation:
        """Run SQL over the live tables: those resolved and committed, by name, and `rejects`.

        A table with no committed part is empty, with its schema.
        """
        return self.connect().sql(sql)

    def connect(self) -> duckdb.DuckDBPyConnection:
        """The connection of `query`, for several: each new one lists the files again."""
        named = {table: self.files(table) for table in TABLES if table != "rejects"}
        return connect({**named, "rejects": self.reject_files()})


def _existing(files: PartFiles | None) -> list[Path]:
    """The committed files of a table, in the order of its parts."""
    if files is None:
        return []
    done = files.committed()
    return [files[part] for part in files if part in done]
