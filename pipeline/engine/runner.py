"""Runs chains of stages, fits and corpus steps, in this process or through Ray.

Part ids, not rows, flow through Ray Data: an actor reads its inputs by path, commits its output and
passes on a few figures. Ray Data gives placement, pools that grow and shrink, backpressure and
retries; the committed files give exactly-once. Stages whose inputs are ready form a chain: each has
its own pool, and a part goes on to the next stage while others are still in the first.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import dropwhile, groupby
from pathlib import Path
from typing import Any, Protocol

from pipeline.engine.corpus import MODEL_FILE, Task
from pipeline.engine.corpus_step import CorpusStepTask, do_corpus_step
from pipeline.engine.faults import as_user_error, brief
from pipeline.engine.fingerprint import hash_folder
from pipeline.engine.machine_cache import local_copy
from pipeline.engine.stage import Dataflow, FitInputs, FitSpec, Progress, Resources, StageSpec, load
from pipeline.engine.storage import TEMPORARY_SUFFIX, commit_json, committing_folder, is_local
from pipeline.engine.worker import (
    CommittingWorker,
    Result,
    RunContext,
    again_of,
    do_part,
    results_of,
)
from pipeline.errors import FAILED, UserError

_MAX_RESTARTS = 30
"""Ray starts a dead actor again without a limit unless told: a worker that dies while it loads its
model would do so for ever. A record that kills its worker is given up long before this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A stage of a chain, and what it has to do: a task for each part that lacks it."""

    spec: StageSpec
    tasks: Mapping[str, Task]


class Runner(Protocol):
    """Where chains, fits and corpus steps run."""

    def run_chain(self, links: Sequence[Link], models: Mapping[str, Path]) -> Iterator[Result]:
        """Do the tasks of stages that follow one another; yields what becomes of each part."""

    def run_fit(self, spec: FitSpec, inputs: FitInputs, folder: Path) -> Iterator[Progress]:
        """Fit a model and commit its folder; yields how far it is."""

    def run_corpus_step(self, task: CorpusStepTask) -> int:
        """Do a step over the whole corpus and return the number of its rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcessRunner:
    """Everything in this process, one part after the other: for small corpora and a debugger."""

    context: RunContext

    def run_chain(self, links: Sequence[Link], models: Mapping[str, Path]) -> Iterator[Result]:
        """Do the parts in their order, each through all stages."""
        workers = [CommittingWorker(link.spec, models, self.context) for link in links]
        for row in _rows(links):
            for worker in workers:
                row = worker(row)  # noqa: PLW2901 - the row on its way
            yield from results_of(row)

    def run_fit(self, spec: FitSpec, inputs: FitInputs, folder: Path) -> Iterator[Progress]:
        """Fit here."""
        return fit_and_commit(spec, inputs, folder)

    def run_corpus_step(self, task: CorpusStepTask) -> int:
        """Do it here."""
        return do_corpus_step(task)


@dataclass(frozen=True, slots=True, kw_only=True)
class RayRunner:
    """Actor pools on the Ray cluster that this process is connected to."""

    num_workers: int
    context: RunContext

    def run_chain(self, links: Sequence[Link], models: Mapping[str, Path]) -> Iterator[Result]:
        """Do the parts with up to `num_workers` processes for each stage."""
        import ray

        few = len({part for link in links for part in link.tasks}) <= self.num_workers
        for segment in _segments(links, ray.cluster_resources(), cut_at_dataflow=few):
            first, *others = segment
            yield from self._run_segment([_without_idle_dataflow(first, models), *others], models)

    def _run_segment(self, links: Sequence[Link], models: Mapping[str, Path]) -> Iterator[Result]:
        import ray

        rows = _rows(links)
        # One for all rounds: it may hold what a run has spent.
        flows = {
            link.spec.name: load(link.spec.dataflow)(link.spec.settings, models)
            for link in links
            if link.spec.dataflow
        }
        while rows:
            under_way = {row["part"] for row in rows}
            again = []
            few = len(rows) <= self.num_workers and not flows
            try:
                ahead = (
                    self._few(links, rows, models)
                    if few
                    else self._many(links, rows, models, flows)
                )
                for row in ahead:
                    under_way.discard(row["part"])
                    yield from results_of(row)
                    if more := again_of(row):
                        again.append(more)
            except ray.exceptions.RayError as error:
                known = [as_user_error(error), *(flow.explain(error) for flow in flows.values())]
                steps = ", ".join(link.spec.name for link in links)
                raise next(filter(None, known), _unexpected(steps, error)) from error
            if under_way:
                raise UserError(
                    f"Ray lost {len(under_way)} parts on their way, {min(under_way)} among them.",
                    "What is committed stays; run the same command again.",
                    exit_code=FAILED,
                )
            rows = again
            links = list(dropwhile(lambda link: not link.spec.dataflow, links))

    def source(self, rows: list[dict[str, str]]) -> Any:  # noqa: ANN401 - a Ray dataset
        """A dataset that gives the rows of a chain, each as a block of its own."""
        import ray

        return ray.data.from_items(rows, override_num_blocks=len(rows))

    def _many(
        self,
        links: Sequence[Link],
        rows: list[dict[str, str]],
        models: Mapping[str, Path],
        flows: Mapping[str, Dataflow],
    ) -> Iterator[dict[str, str]]:
        """Each stage has a pool of actors that grows and shrinks."""
        import ray

        dataset = self.source(rows)
        with warnings.catch_warnings():
            # Ray 2.60 says that arguments of every actor will go; restarts have no other limit.
            warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
            for link in links:
                if flow := flows.get(link.spec.name):
                    dataset = flow(dataset, len(rows))
                else:
                    dataset = self._pool(dataset, link, models, is_small=bool(flows))
        return iter(dataset.iter_rows())

    def _pool(
        self,
        dataset: Any,  # noqa: ANN401 - a Ray dataset
        link: Link,
        models: Mapping[str, Path],
        *,
        is_small: bool,
    ) -> Any:  # noqa: ANN401
        """The dataset behind a stage's actors.

        A pool that starts small leaves room for a dataflow, which cannot do with less than all.
        """
        import ray

        most = min(self.num_workers, len(link.tasks))
        return dataset.map(
            CommittingWorker,
            fn_constructor_kwargs={
                "spec": link.spec, "models": dict(models), "context": self.context,
            },
            compute=ray.data.ActorPoolStrategy(
                min_size=1, max_size=most, initial_size=1 if is_small else most
            ),
            ray_remote_args_fn=lambda: {"max_restarts": _MAX_RESTARTS},
            **_ray_options(link.spec.resources),
        )  # fmt: skip

    def _few(
        self, links: Sequence[Link], rows: list[dict[str, str]], models: Mapping[str, Path]
    ) -> Iterator[dict[str, str]]:
        """Every part can have a process to itself, and goes through its stages there.

        Ray's tasks, unlike its actors, take over processes that are idle, with what these have
        loaded: after one changed file, starting processes took most of the run.
        """
        import ray

        ahead: list[Any] = list(rows)
        for resources, group in groupby(links, key=lambda link: link.spec.resources):
            specs = [link.spec for link in group]
            remote = self._remote(do_part, resources, max_retries=_MAX_RESTARTS)
            ahead = [remote.remote(specs, dict(models), self.context, row) for row in ahead]
        for reference in ahead:
            yield ray.get(reference)

    def run_fit(self, spec: FitSpec, inputs: FitInputs, folder: Path) -> Iterator[Progress]:
        """Fit in a Ray task that streams its progress."""
        import ray

        remote = self._remote(fit_and_commit, spec.resources, num_returns="streaming")
        references: Iterable[Any] = remote.remote(spec, inputs, folder)
        with _explained(f"fit {spec.name}"):
            for reference in references:
                yield ray.get(reference)

    def run_corpus_step(self, task: CorpusStepTask) -> int:
        """Do it in a Ray task, so that this process holds no rows."""
        import ray

        remote = self._remote(do_corpus_step, task.spec.resources)
        with _explained(task.spec.name):
            num_rows: int = ray.get(remote.remote(task))
        return num_rows

    def _remote(
        self,
        function: Callable[..., Any],
        resources: Resources,
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401 - Ray's types are made at run time
        import ray

        settings = _ray_options(resources)
        # No retries unless told: a fit's progress would start again; the next run does it anew.
        return ray.remote(function).options(**{"max_retries": 0, **settings, **options})


def _rows(links: Sequence[Link]) -> list[dict[str, str]]:
    """A row for each part that some stage of the chain has to do, in the order of the parts."""
    tasks: dict[str, dict[str, str]] = {}
    for link in links:
        for part, task in link.tasks.items():
            tasks.setdefault(part, {})[link.spec.name] = task.to_json()
    return [{"part": part, "tasks": json.dumps(own), "done": "[]"} for part, own in tasks.items()]


def _without_idle_dataflow(link: Link, models: Mapping[str, Path]) -> Link:
    """The first stage of a chain, done by its worker where no part needs its dataflow.

    What it serves is expensive to start (an LLM for parts without a picture).
    """
    if link.spec.dataflow is None:
        return link
    dataflow: Dataflow = load(link.spec.dataflow)(link.spec.settings, models)
    if any(dataflow.needs(task.work) for task in link.tasks.values()):
        return link
    return replace(link, spec=replace(link.spec, dataflow=None, resources=Resources()))


def _segments(
    links: Sequence[Link], cluster: Mapping[str, float], *, cut_at_dataflow: bool
) -> Iterator[list[Link]]:
    """Cut a chain where the cluster cannot hold one actor of each stage at a time.

    Each pool keeps an actor, so that a chain that wants more CPUs or GPUs than there are would wait
    for ever. A chain of few parts is cut before a dataflow, too: when its inputs are there, it is
    seen whether it is needed at all.
    """
    segment: list[Link] = []
    cpus = gpus = 0.0
    for link in links:
        needs = link.spec.resources
        cpus, gpus = cpus + needs.num_cpus, gpus + needs.num_gpus
        is_full = cpus > cluster.get("CPU", 0) or gpus > cluster.get("GPU", 0)
        if segment and (is_full or (cut_at_dataflow and link.spec.dataflow)):
            yield segment
            segment, cpus, gpus = [], needs.num_cpus, needs.num_gpus
        segment.append(link)
    yield segment


def _ray_options(resources: Resources) -> dict[str, Any]:
    options: dict[str, Any] = {
        "num_cpus": resources.num_cpus,
        "num_gpus": resources.num_gpus,
        "memory": resources.memory_bytes,
    }
    if resources.python is not None:
        options["runtime_env"] = {"py_executable": str(resources.python)}
    return options


def _unexpected(steps: str, error: Exception) -> UserError:
    """An error that ends some steps and that nobody has foreseen."""
    cause = getattr(error, "cause", None) or error
    told = str(error) if 'File "' in str(error) else f"{type(cause).__name__}: {cause}"
    return UserError(
        f"{steps}: {brief(told)}",
        "What is committed stays; when the cause is gone, the same command goes on from there. "
        "The whole traceback is at the end of the corpus's events.jsonl.",
        exit_code=FAILED,
    )


@contextmanager
def _explained(step: str) -> Iterator[None]:
    """Say in words what a Ray task has raised: Ray adds hundreds of lines."""
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        raise (as_user_error(error) or _unexpected(step, error)) from error


def fit_and_commit(spec: FitSpec, inputs: FitInputs, folder: Path) -> Iterator[Progress]:
    """Fit a model into a temporary folder and commit it as `folder` with its description."""
    local = {name: local_copy(model) for name, model in inputs.models.items()}
    with committing_folder(folder, last=MODEL_FILE) as temporary:
        yield from load(spec.fit)(spec.settings, replace(inputs, models=local), temporary)
        description = {
            "name": spec.name,
            "version": spec.version,
            "settings": spec.settings.model_dump(mode="json"),
            "content": hash_folder(temporary),
            "fitted_on": {
                table: sorted(f"{path.parent.name}/{path.name}" for path in paths)
                for table, paths in inputs.tables.items()
            },
            "meanings": dict(inputs.meanings),
        }
        commit_json(temporary / MODEL_FILE, description)


def remove_leftovers(root: Path) -> None:
    """Delete temporary files that a killed run left behind; nobody reads them.

    A store has none: what a killed writer had sent becomes no object.
    """
    if not is_local(root):
        return
    for path in list(root.rglob(f".*{TEMPORARY_SUFFIX}")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
