"""What a run would do, and why, before it does it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.filling import DECIDED_FILE
from jobs.places import check_corpus
from jobs.recipe import Recipe
from jobs.run import check_names
from jobs.stages import list_parts, part_extras, steps, vocabulary_models
from pipeline.engine.corpus import Corpus, PartFiles
from pipeline.engine.corpus_step import resolve_corpus_step
from pipeline.engine.parts import read_parts
from pipeline.engine.stage import CorpusStepSpec, FitSpec, StageSpec, Step
from pipeline.engine.storage import read_json
from tokenizer_cache.publishing import unwritten


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """What a run would do in one step.

    Attributes:
        step: its name.
        kind: `stage`, `fit` or `corpus step`.
        parts: how many parts it would do; of a stage below something that is not known yet, how
            many at the most.
        of: how many parts there are.
        reasons: why, in words; empty when there is nothing to do.
    """

    step: str
    kind: str
    parts: int
    of: int
    reasons: tuple[str, ...] = ()


def plan(
    recipe: Recipe, root: Path, *, until: str | None = None, refit: Collection[str] = ()
) -> list[PlannedStep]:
    """What `fill` would do with the same arguments; touches nothing.

    Raises:
        UserError: as `fill`, before any work.
    """
    flow = steps(recipe)
    check_names(flow, until, refit)
    check_corpus(recipe, root)
    before = read_parts(root)
    parts = list_parts(recipe, {part.look: part for part in before if part.look})
    corpus = Corpus(root=root, recipe=recipe.model_dump(mode="json"), parts=parts)
    decided = root / DECIDED_FILE
    planner = _Planner(
        recipe=recipe,
        corpus=corpus,
        refit=refit,
        new={part.name for part in parts} - {part.name for part in before},
        gone=len({part.name for part in before} - {part.name for part in parts}),
        before=read_json(decided) if decided.exists() else {},
        unknown={},
        missing={},
    )
    names = [step.name for step in flow]
    last = len(flow) if until is None else names.index(until) + 1
    return [planner.look_at(step) for step in flow[:last]]


@dataclass(kw_only=True)
class _Planner:
    """Walks the steps.

    Attributes:
        recipe: what the corpus should be.
        corpus: grows as its steps are resolved.
        refit: names of the models to fit anew.
        new: parts that the last run did not have.
        gone: how many parts that it had are no more.
        before: what decided each step in the last run.
        unknown: the tables and models that will be made anew, and why.
        missing: for each table, the parts that will be.
    """

    recipe: Recipe
    corpus: Corpus
    refit: Collection[str]
    new: set[str]
    gone: int
    before: Mapping[str, Any]
    unknown: dict[str, str]
    missing: dict[str, set[str]]

    def look_at(self, step: Step) -> PlannedStep:
        match step:
            case StageSpec():
                return self._stage(step)
            case FitSpec():
                return self._fit(step)
            case CorpusStepSpec():
                return self._corpus_step(step)

    def _stage(self, spec: StageSpec) -> PlannedStep:
        models = vocabulary_models(self.recipe) if spec.name == "shards" else spec.models
        above = self._unknown_above((*spec.reads, *models))
        if above:
            self.unknown[spec.writes] = f"`{spec.writes}` is written anew"
            return self._planned(spec.name, "stage", len(self.corpus.parts), above)
        tasks = self.corpus.resolve_stage(spec, part_extras(spec, self.recipe, self.corpus))
        todo = self.missing[spec.writes] = {task.work.part for task in tasks}
        if spec.name == "shards" and self.corpus.shards is not None:
            todo |= unwritten(self.corpus.shards, self.corpus.tables["samples"])
        return self._planned(spec.name, "stage", len(todo), tuple(self._why(spec, todo)))

    def _why(self, spec: StageSpec, todo: set[str]) -> Iterator[str]:
        if not todo:
            return
        changes = list(_differences(self.before.get(spec.name), self.corpus.decided[spec.name]))
        yield from changes
        new = todo & self.new
        if new:
            gone = f", {self.gone} are gone" if self.gone else ""
            yield f"{len(new)} parts of the sources are new or changed{gone}"
        old = todo - self.new
        if old and not changes:
            above = [name for name in spec.reads if self.missing.get(name, set()) & old]
            yield (
                f"{', '.join(f'`{name}`' for name in above)} change above it"
                if above
                else f"{len(old)} parts are not committed (an earlier run did not end, or they "
                "were removed)"
            )

    def _fit(self, spec: FitSpec) -> PlannedStep:
        # Of a table that is found anew because of its records it is known what it will mean.
        unclear = [name for name in spec.follows if name not in self.corpus.meanings]
        above = self._unknown_above((*spec.models, *unclear))
        if not above and not self.corpus.resolve_fit(spec, refit=spec.name in self.refit):
            return self._planned(spec.name, "fit", 0, ())
        reasons = above or tuple(
            _differences(self.before.get(spec.name), self.corpus.decided[spec.name])
        )
        if spec.name in self.refit:
            reasons = (f"--refit {spec.name}",)
        self.unknown[spec.name] = f"model `{spec.name}` is fitted anew"
        return self._planned(spec.name, "fit", 0, reasons or ("it has not been fitted yet",))

    def _corpus_step(self, spec: CorpusStepSpec) -> PlannedStep:
        above = self._unknown_above((*spec.reads, *spec.models))
        if not above and resolve_corpus_step(self.corpus, spec) is None:
            return self._planned(spec.name, "corpus step", 0, ())
        self.unknown[spec.writes] = f"`{spec.writes}` is found anew (most parts keep theirs)"
        self.corpus.tables[spec.writes] = PartFiles(self.corpus.root / "tables" / spec.writes)
        decided = self.corpus.decided.get(spec.name)
        reasons = above or tuple(_differences(self.before.get(spec.name), decided))
        reasons = reasons or ("the tables that it reads have changed, or its files are gone",)
        return self._planned(spec.name, "corpus step", 0, reasons)

    def _unknown_above(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(self.unknown[name] for name in names if name in self.unknown)

    def _planned(self, step: str, kind: str, parts: int, reasons: tuple[str, ...]) -> PlannedStep:
        if parts and not reasons:
            reasons = ("its tables change above it",)
        of = len(self.corpus.parts)
        return PlannedStep(step=step, kind=kind, parts=parts, of=of, reasons=reasons)


def _differences(before: Any, now: Any, where: str = "") -> Iterator[str]:  # noqa: ANN401
    """The leaves in which what decides a step has changed; nothing for a step that is new."""
    if before is None or before == now:
        return
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            name = f"{where}.{key}" if where else key
            if key in before and key in now:
                yield from _differences(before[key], now[key], name)
            else:
                yield f"{name}: {before.get(key, 'nothing')} -> {now.get(key, 'nothing')}"
        return
    yield f"{where}: {before} -> {now}"
