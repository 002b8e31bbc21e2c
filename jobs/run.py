"""Fills or refreshes a corpus: resolves each step and does what is missing."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from jobs.forgetting import finish, take_out_unfinished
from jobs.progress import Reporter, StageProgress
from jobs.recipe import Recipe, dump_recipe, read_resolved_recipe
from jobs.stages import Extras, list_parts, part_extras, steps, vocabulary
from pipeline.engine.corpus import Corpus, Task
from pipeline.engine.parts import Part
from pipeline.engine.runner import (
    EventLog,
    InProcessRunner,
    PartDone,
    RayRunner,
    Runner,
    connect_to_ray,
    remove_leftovers,
)
from pipeline.engine.stage import CorpusStepSpec, FitSpec, StageSpec
from pipeline.engine.storage import commit_text
from pipeline.engine.tables import read_table, write_table
from pipeline.errors import UserError
from tokenizer_cache.manifest import find_manifest, withdraw, write_manifest

RECIPE_FILE = "recipe.yaml"
PARTS_FILE = "parts.parquet"
_PARTS = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("slice", pa.string(), nullable=False),
        pa.field("num_records", pa.int64(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("look", pa.string(), nullable=False),
    ]
)


def fill(
    recipe: Recipe,
    root: Path,
    *,
    until: str | None,
    reporter: Reporter,
    parts: Sequence[Part] | None = None,
) -> Corpus:
    """Bring a corpus up to its recipe and return it; what is committed already is not done again.

    Args:
        recipe: what the corpus should be.
        root: the corpus's folder; made where it is missing.
        until: name of the last step to do; None does all.
        reporter: shows progress.
        parts: the parts that the corpus has; None asks the sources.

    Raises:
        UserError: when another run holds the corpus, or `until` names no step.
    """
    flow = steps(recipe)
    names = [step.name for step in flow]
    if until is not None and until not in names:
        raise UserError(f"there is no stage {until!r}", f"The stages are {', '.join(names)}.")
    root = root.resolve()
    with held(root):
        remove_leftovers(root)
        take_out_unfinished(root)
        if parts is None:
            parts = list_parts(recipe, {part.look: part for part in read_parts(root) if part.look})
        corpus = _corpus(recipe, root, parts)
        _remember(recipe, corpus)
        log = EventLog(root / "events.jsonl")
        with closing(_LazyRunner(recipe.run.num_workers)) as runner:
            for step in flow[: names.index(until) + 1 if until else None]:
                match step:
                    case StageSpec():
                        _do_stage(step, recipe, corpus, runner, reporter, log)
                    case FitSpec():
                        _do_fit(step, corpus, runner, reporter, log)
                    case CorpusStepSpec():
                        _do_corpus_step(step, corpus, reporter, log)
        if until is None:
            finish(corpus)
        return corpus


def open_corpus(root: Path) -> tuple[Recipe, Corpus]:
    """A corpus as its own recipe left it, resolved as far as its models have been fitted.

    Raises:
        UserError: when `root` holds no corpus.
    """
    path = root / RECIPE_FILE
    if not path.exists():
        raise UserError(
            f"{root} is no corpus: there is no {RECIPE_FILE} in it", "Run `anymix run`."
        )
    recipe = read_resolved_recipe(path)
    corpus = _corpus(recipe, root.resolve(), read_parts(root))
    for step in steps(recipe):
        match step:
            case StageSpec():
                corpus.resolve_stage(step, part_extras(step, recipe, corpus))
            case FitSpec():
                if corpus.resolve_fit(step):
                    del corpus.models[step.name]
                    break
            case CorpusStepSpec():
                if corpus.resolve_corpus_step(step):
                    break
    return recipe, corpus


def read_parts(root: Path) -> list[Part]:
    """The parts of the last run; none where there was none."""
    path = root / PARTS_FILE
    if not path.exists():
        return []
    rows = read_table(path).to_pylist()
    return [Part(**{**row, "slice": json.loads(row["slice"])}) for row in rows]


def _corpus(recipe: Recipe, root: Path, parts: Sequence[Part]) -> Corpus:
    return Corpus(root=root, recipe=recipe.model_dump(mode="json"), parts=parts)


def _remember(recipe: Recipe, corpus: Corpus) -> None:
    """Write the resolved recipe and the parts, where they have changed."""
    path, text = corpus.root / RECIPE_FILE, dump_recipe(recipe)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        commit_text(path, text)
    if read_parts(corpus.root) != list(corpus.parts):
        rows = [{**asdict(part), "slice": json.dumps(part.slice)} for part in corpus.parts]
        write_table(corpus.root / PARTS_FILE, rows, _PARTS)


class _LazyRunner:
    """Starts Ray when the first work turns up: a run with nothing to do starts nothing."""

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers
        self._has_connected = False

    def get(self) -> Runner:
        """Where tasks and fits run."""
        if not self._num_workers:
            return InProcessRunner()
        self.connect()
        return RayRunner(self._num_workers)

    def connect(self) -> None:
        """Be connected to Ray."""
        self._has_connected = connect_to_ray() or self._has_connected

    def close(self) -> None:
        """Give back what `connect` took; a Ray that was there before stays."""
        if self._has_connected:
            import ray

            ray.shutdown()


def _do_stage(
    spec: StageSpec,
    recipe: Recipe,
    corpus: Corpus,
    runner: _LazyRunner,
    reporter: Reporter,
    log: EventLog,
) -> None:
    extras = part_extras(spec, recipe, corpus)
    published = _published(corpus, extras) if spec.name == "shards" else None
    tasks = corpus.resolve_stage(spec, extras, published)
    if spec.name == "shards":
        withdraw(_shards_of(corpus), {task.work.part for task in tasks})
    if not tasks:
        reporter.unchanged(spec.name)
    else:
        started = time.monotonic()
        with reporter.stage(spec.name, num_parts=len(tasks), of=len(corpus.parts)) as show:
            if spec.name == "synthesize":
                done = _synthesize(recipe, corpus, tasks, runner, show)
            else:
                done = runner.get().run_tasks(spec, tasks, corpus.models)
            for part in done:
                show.part(part)
                log.write(spec.name, **asdict(part))
        log.write(spec.name, parts=len(tasks), seconds=time.monotonic() - started)
    if spec.name == "shards":
        _publish(corpus, changed=bool(tasks))


def _do_fit(
    spec: FitSpec, corpus: Corpus, runner: _LazyRunner, reporter: Reporter, log: EventLog
) -> None:
    if not corpus.resolve_fit(spec):
        reporter.unchanged(spec.name)
        return
    started = time.monotonic()
    with reporter.fit(spec.name) as show:
        folder = corpus.models[spec.name]
        for progress in runner.get().run_fit(spec, corpus.fit_inputs(spec), folder):
            show(progress)
    log.write(spec.name, fitted=folder.name, seconds=time.monotonic() - started)


def _do_corpus_step(
    spec: CorpusStepSpec, corpus: Corpus, reporter: Reporter, log: EventLog
) -> None:
    if not corpus.resolve_corpus_step(spec):
        reporter.unchanged(spec.name)
        return
    started = time.monotonic()
    num_rows = corpus.do_corpus_step(spec)
    corpus.resolve_corpus_step(spec)
    seconds = time.monotonic() - started
    reporter.corpus_step(spec.name, num_rows, seconds)
    log.write(spec.name, rows=num_rows, seconds=seconds)


def _synthesize(
    recipe: Recipe,
    corpus: Corpus,
    tasks: list[Task],
    runner: _LazyRunner,
    show: StageProgress,
) -> Iterator[PartDone]:
    """The LLM stage goes through `ray.data.llm`, over the rows of all its parts at once."""
    from pipeline.synthesis.engine import synthesize
    from pipeline.synthesis.limit import read_cut

    if recipe.synthesis.limit:
        runner.connect()
    answers = tokens = 0
    for event in synthesize(recipe.synthesis, tasks, cut=read_cut(corpus.models["synthesis"])):
        answers += event.num_answers
        tokens += event.num_tokens
        show.rows(answers, recipe.synthesis.limit, f"records, {tokens} tokens written")
        if event.is_done:
            yield PartDone(
                part=event.part,
                seconds=event.seconds,
                num_rows=event.num_rows,
                num_rejects=event.num_rejects,
            )


def _published(corpus: Corpus, extras: Extras) -> dict[str, str]:
    """For each part that has shards, the `samples` that they were published with; "" for none.

    A shard keeps its name when its content changes, so that a committed part of `samples` says
    nothing about the tars: they may be those of a later recipe, or of a run that was killed.
    """
    manifest = find_manifest(_shards_of(corpus))
    samples = manifest.samples() if manifest else {}
    return {part: samples.get(part, "") for part, extra in extras.items() if extra["names"]}


def _publish(corpus: Corpus, *, changed: bool) -> None:
    """Write the shards' manifest, where a shard has changed, come or gone."""
    manifest = find_manifest(_shards_of(corpus))
    live = {part.name for part in corpus.parts}
    if changed or manifest is None or not manifest.names().keys() <= live:
        write_manifest(_shards_of(corpus), corpus.files("samples"), vocabulary(corpus))


def _shards_of(corpus: Corpus) -> Path:
    assert corpus.shards is not None, "the extras of the shards' stage place them"  # noqa: S101
    return corpus.shards


@contextmanager
def held(root: Path) -> Iterator[None]:
    """Hold the corpus against a second run; the lock ends with the process, however it ends."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise UserError(
                f"{root} is being filled by {holder}", "Wait for it, or stop it first."
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        lock.flush()
        yield
