"""One run over a corpus: takes the steps in their order and does what is missing.

Stages wait in a chain until something needs all of their parts (a fit, a step over the corpus, the
manifest of the shards); then the whole chain runs, each part going through its stages one after the
other while other parts are still in the first.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from traceback import format_exception

from jobs.progress import ChainProgress, Reporter
from jobs.recipe import Recipe
from jobs.stages import part_extras, vocabulary
from pipeline.engine.attempts import ATTEMPTS_FOLDER
from pipeline.engine.corpus import Corpus, Task
from pipeline.engine.corpus_step import resolve_corpus_step
from pipeline.engine.events import EventLog
from pipeline.engine.faults import brief
from pipeline.engine.libraries import remember_libraries
from pipeline.engine.ray_session import connect_to_ray
from pipeline.engine.runner import (
    InProcessRunner,
    Link,
    RayRunner,
    Runner,
    remove_leftovers,
)
from pipeline.engine.stage import CorpusStepSpec, FitSpec, StageSpec, Step
from pipeline.engine.storage import commit_json, read_json
from pipeline.engine.worker import Advance, Left, PartDone, Result, RunContext
from pipeline.errors import FAILED, STOPPED, UserError
from tokenizer_cache.manifest import find_manifest
from tokenizer_cache.publishing import finish_publishing, publish, unwritten, withdraw

DECIDED_FILE = "decided.json"
"""What decided each step's output in the last run, for `--dry-run` to compare with."""

_MAX_LIGHT_PARTS, _MAX_LIGHT_RECORDS = 200, 1_000_000
"""Ours: to select costs 0.03 s a part and 3 s a million records; Ray's start and end cost 5 s."""


@dataclass(kw_only=True)
class Filling:
    """A run under way.

    Attributes:
        recipe: what the corpus should be.
        corpus: grows as its steps are resolved.
        reporter: shows progress.
        log: takes the events.
        run: the run's name.
    """

    recipe: Recipe
    corpus: Corpus
    reporter: Reporter
    log: EventLog
    run: str
    _waiting: list[Link] = field(default_factory=list)
    _said: set[str] = field(default_factory=set)
    _has_started: bool = False
    _has_connected: bool = False

    def __enter__(self) -> Filling:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Say how the run ended, and give back what it took."""
        outcome = "done" if error is None else "stopped"
        if isinstance(error, Exception) and getattr(error, "exit_code", FAILED) != STOPPED:
            outcome = "failed"
        if self._has_started:
            # What a person is told is the last of the causes; who looks for it finds them all here.
            cause = None if error is None else error.__cause__
            whole = {"traceback": "".join(format_exception(cause))} if cause else {}
            self.log.write("run-ended", outcome=outcome, error=str(error or ""), **whole)
        self.log.flush()
        if self._has_connected:
            import ray

            ray.shutdown()

    def finish(self) -> None:
        """Run the chain that still waits, and keep what decided the steps' outputs."""
        self._flush()
        for path in (self.corpus.root / ATTEMPTS_FOLDER).glob("*/*.json"):
            path.unlink()  # of a part that was committed just before its worker was killed
        path = self.corpus.root / DECIDED_FILE
        before = read_json(path) if path.exists() else {}
        decided = before | self.corpus.decided  # `--until` has not come to the steps below
        if decided != before:
            commit_json(path, decided)

    def do(self, step: Step, *, refit: bool = False) -> None:
        """Take the next step: do it, or let it wait in the chain."""
        match step:
            case StageSpec(name="shards"):
                self._write_shards(step)
            case StageSpec():
                extras = part_extras(step, self.recipe, self.corpus)
                self._wait(step, self.corpus.resolve_stage(step, extras))
            case FitSpec():
                self._fit(step, refit=refit)
            case CorpusStepSpec():
                self._do_corpus_step(step)

    def _wait(self, spec: StageSpec, tasks: list[Task]) -> None:
        self._waiting.append(Link(spec=spec, tasks={task.work.part: task for task in tasks}))

    def _flush(self) -> None:
        """Run the chain that has been waiting."""
        links, self._waiting = self._waiting, []
        busy = [link for link in links if link.tasks]
        counts = {link.spec.name: len(link.tasks) for link in links}
        with self.reporter.chain(counts, of=len(self.corpus.parts)) as show:
            if not busy:
                return
            parts = {part for link in busy for part in link.tasks}
            runner = self._runner(
                needs_ray=any(link.spec.dataflow for link in busy),
                is_light=all(link.spec.is_light for link in busy) and self._is_few(parts),
            )
            failed, left = self._follow(busy, runner.run_chain(busy, self.corpus.models), show)
        if failed:
            raise _failure(failed)
        if left:
            raise UserError(
                f"{left[0].stage}: {left[0].why}; {len(left)} parts are not done.",
                "What is committed stays; the same command goes on from there.",
                exit_code=STOPPED,
            )

    def _follow(
        self, links: list[Link], results: Iterator[Result], show: ChainProgress
    ) -> tuple[list[PartDone], list[Left]]:
        """Log and show the parts of some stages; returns those that failed or are left undone."""
        self._log_start(links)
        failed: list[PartDone] = []
        left: list[Left] = []
        for result in results:
            if isinstance(result, Advance):
                show.advance(result)
                self._warn(result)
                continue
            if isinstance(result, Left):
                left.append(result)
                continue
            self._log_part(result)
            if result.error:
                failed.append(result)
            else:
                show.part(result)
        self._log_end(show)
        return failed, left

    def _fit(self, spec: FitSpec, *, refit: bool) -> None:
        if not self.corpus.resolve_fit(spec, refit=refit):
            self._flush_quietly()
            self.reporter.unchanged(spec.name)
            return
        if any(link.spec.writes in spec.reads for link in self._waiting):
            self._flush()
        parts = {part.name for part in self.corpus.parts}
        runner = self._runner(is_light=spec.is_light and self._is_few(parts))
        started = time.monotonic()
        self.log.write("stage-started", stage=spec.name)
        with self.reporter.fit(spec.name) as show:
            folder = self.corpus.models[spec.name]
            inputs = self.corpus.fit_inputs(spec)
            for progress in runner.run_fit(spec, inputs, folder):
                show(progress)
        self.log.write(
            "fitted", stage=spec.name, model=folder.name, seconds=time.monotonic() - started
        )

    def _do_corpus_step(self, spec: CorpusStepSpec) -> None:
        if resolve_corpus_step(self.corpus, spec) is None:
            self._flush_quietly()
            self.reporter.unchanged(spec.name)
            return
        self._flush()
        runner = self._runner()
        task = resolve_corpus_step(self.corpus, spec)  # again: its input has been written now
        assert task is not None, "what it reads has not changed"  # noqa: S101
        started = time.monotonic()
        self.log.write("stage-started", stage=spec.name)
        num_rows = runner.run_corpus_step(task)
        resolve_corpus_step(self.corpus, spec)
        seconds = time.monotonic() - started
        self.reporter.corpus_step(spec.name, num_rows, seconds)
        self.log.write("stage-done", stage=spec.name, num_rows=num_rows, seconds=seconds)

    def _flush_quietly(self) -> None:
        """Let a chain with work go on waiting; say of one without that nothing has changed."""
        if not any(link.tasks for link in self._waiting):
            self._flush()

    def _write_shards(self, spec: StageSpec) -> None:
        """A part is done when the manifest names its shards, or when they wait to be published."""
        self._flush()
        extras = part_extras(spec, self.recipe, self.corpus)
        folder = self.corpus.shards
        assert folder is not None, "the extras of the shards' stage place them"  # noqa: S101
        finish_publishing(folder)
        missing = {task.work.part: task for task in self.corpus.resolve_stage(spec, extras)}
        samples = self.corpus.tables["samples"]
        for part in unwritten(folder, samples):
            samples[part].unlink()  # it names shards that are gone
            missing[part] = self.corpus.task(spec, part, extras)
        if missing:
            withdraw(folder, {part: samples.prints[part] for part in missing})
        self._wait(spec, list(missing.values()))
        self._flush()
        manifest = find_manifest(folder)
        if manifest is None or manifest.samples != samples.fingerprint():
            publish(
                folder,
                self.corpus.files("samples"),
                vocabulary(self.recipe, self.corpus),
                state=samples.fingerprint(),
            )

    def _is_few(self, parts: Collection[str]) -> bool:
        """Whether some parts are so few and so small that light work on them is done here."""
        num_records = sum(part.num_records for part in self.corpus.parts if part.name in parts)
        return len(parts) <= _MAX_LIGHT_PARTS and num_records <= _MAX_LIGHT_RECORDS

    def _runner(self, *, needs_ray: bool = False, is_light: bool = False) -> Runner:
        """Where work runs. Ray starts when the first work that needs it turns up, not before."""
        num_workers = 0 if is_light else self.recipe.run.num_workers or int(needs_ray)
        context = RunContext(
            run=self.run,
            attempts=self.corpus.root / ATTEMPTS_FOLDER,
            timeout_s=self.recipe.run.timeout_s if num_workers else None,
        )
        if not self._has_started:
            self._has_started = True
            remove_leftovers(self.corpus.root)
            remember_libraries(self.corpus.root)
            self.log.write(
                "run-started",
                recipe=self.recipe.name,
                parts=len(self.corpus.parts),
                records=sum(part.num_records for part in self.corpus.parts),
            )
        if not num_workers:
            return InProcessRunner(context=context)
        self._has_connected = connect_to_ray() or self._has_connected
        return RayRunner(num_workers=num_workers, context=context)

    def _warn(self, made: Advance) -> None:
        """Pass on what a stage has to say, once a run: each round of its engine finds it again."""
        for notice in made.notices.splitlines():
            if notice not in self._said:
                self._said.add(notice)
                self.log.write("warning", stage=made.stage, warning=notice)
                self.reporter.warn(notice)

    def _log_start(self, links: list[Link]) -> None:
        for link in links:
            self.log.write(
                "stage-started",
                stage=link.spec.name,
                parts=len(link.tasks),
                of=len(self.corpus.parts),
            )

    def _log_end(self, shown: ChainProgress) -> None:
        for name, stage in shown.stages.items():
            self.log.write(
                "stage-done",
                stage=name,
                parts=stage.parts_done,
                num_rows=stage.num_rows,
                num_rejects=stage.num_rejects,
                seconds=stage.seconds,
            )

    def _log_part(self, done: PartDone) -> None:
        event = asdict(done)
        error = event.pop("error")
        if error:
            self.log.write("error", stage=done.stage, part=done.part, error=error)
        else:
            self.log.write("part-done", **event)


def _failure(failed: list[PartDone]) -> UserError:
    """The parts that could not be done, at the end of a chain in which the others were."""
    first = failed[0]
    more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
    return UserError(
        f"{first.stage} could not do part {first.part}{more}: {brief(first.error)}",
        "All other parts are committed. Put the cause right and run the same command again; "
        "the whole traceback is in the corpus's events.jsonl.",
        exit_code=FAILED,
    )
