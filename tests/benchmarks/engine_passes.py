"""One timed pass over prompts, by the LLM's stage and by raw vLLM.

Every pass starts an engine of its own: one that has seen the prompts would find them in its prefix
cache. It answers a first part to get warm; then the clock starts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.recipe import Recipe
from jobs.stages import steps
from pipeline.engine.corpus import Corpus
from pipeline.engine.parts import Part
from pipeline.engine.runner import InProcessRunner, Link, RayRunner, connect_to_ray
from pipeline.engine.stage import StageSpec
from pipeline.engine.storage import commit_json
from pipeline.engine.tables import connect
from pipeline.engine.worker import PartDone, RunContext
from pipeline.synthesis.backends.vllm import engine_kwargs, runtime_env
from pipeline.synthesis.prompts import load_prompts
from pipeline.synthesis.requests import read_requests
from pipeline.synthesis.settings import SynthesisSettings
from pipeline.synthesis.weights import resolve_model
from tests.benchmarks.critics import records
from tests.benchmarks.foreign_load import CpuTimes, cpu_times, foreign_percent
from tests.benchmarks.gated_ingest import gated_ingest
from tests.benchmarks.raw_vllm import MARK

CHECKOUT = Path(__file__).parents[2]
RAW = Path(__file__).with_name("raw_vllm.py")
STAGE = "ask"
RECORDS_PER_PART = 16

Request = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What a timed pass has shown.

    Attributes:
        seconds: from the first request that is given to the last answer that is back.
        num_tokens: tokens that were written.
        foreign: percent of the cores that other processes used meanwhile.
        texts: the answers.
        start_s: how long the engine took to start; 0 where it is not known.
    """

    seconds: float
    num_tokens: int
    foreign: float
    texts: tuple[str, ...]
    start_s: float = 0

    @property
    def rate(self) -> float:
        """Tokens written per second."""
        return self.num_tokens / self.seconds


def packaged_settings() -> SynthesisSettings:
    """The stage's defaults, at one attempt: what a reroll asks hangs on what was written."""
    python = CHECKOUT / ".venv-llm" / "bin" / "python"
    return SynthesisSettings(python=python if python.exists() else None, attempts=1, limit=None)


def parts_of_names(num_parts: int) -> list[Part]:
    """Parts of OpenMoji's names, spread over the alphabet; the first is there to get warm."""
    names = sorted({record.name for record in records()})
    chosen = names[:: len(names) // (num_parts * RECORDS_PER_PART)]
    return [
        Part.of(
            "names",
            {"captions": chosen[start : start + RECORDS_PER_PART]},
            num_records=RECORDS_PER_PART,
        )
        for start in range(0, num_parts * RECORDS_PER_PART, RECORDS_PER_PART)
    ]


def our_pass(settings: SynthesisSettings, parts: Sequence[Part], folder: Path) -> Pass:
    """The stage, in a chain behind an ingest that holds all parts but the first back.

    The clock starts when the first part's answers are committed and ends when the last part's are:
    what Ray Data needs to bring the first request to the engine and the last answer home is in it.
    """
    import ray

    ingest, ask, corpus = _chain(settings, parts, folder)
    first, *others = (corpus.tables["answers"][part.name] for part in parts)
    connect_to_ray()
    context = RunContext(run="benchmark", attempts=folder / "attempts")
    runner = RayRunner(num_workers=1, context=context)
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        # Not by what the chain yields: Ray Data keeps a block back until the next one is there.
        begin = pool.submit(_open_gate, first, _gate(folder), stop)
        try:
            for done in runner.run_chain([ingest, ask], corpus.models):
                assert not (isinstance(done, PartDone) and done.error), done
        finally:
            stop.set()
    end = cpu_times()
    ray.shutdown()  # none of its processes may stand beside the rival
    rows = connect({"answers": others}).sql("SELECT num_output_tokens, text FROM answers")
    answers = rows.fetchall()
    return Pass(
        seconds=max(path.stat().st_mtime for path in others) - begin.result().at,
        num_tokens=sum(num_tokens for num_tokens, _ in answers),
        foreign=foreign_percent(begin.result(), end),
        texts=tuple(text for _, text in answers),
    )


def _open_gate(first: Path, gate: Path, stop: threading.Event) -> CpuTimes:
    """Lets the parts through when the first one is committed; the figures of then."""
    while not first.exists() and not stop.wait(0.02):
        pass
    now = cpu_times()
    gate.touch()
    return now


def read_prompts(
    settings: SynthesisSettings, parts: Sequence[Part], folder: Path
) -> list[list[Request]]:
    """What the stage asks its engine about each part."""
    ingest, ask, _ = _chain(settings, parts, folder)
    _gate(folder).touch()
    context = RunContext(run="benchmark", attempts=folder / "attempts")
    for _ in InProcessRunner(context=context).run_chain([ingest], {}):
        pass
    prompts = load_prompts(settings)
    rows = [
        {"part": part.name, "tasks": json.dumps({STAGE: ask.tasks[part.name].to_json()})}
        for part in parts
    ]
    return [
        [
            {name: request[name] for name in ("messages", "sampling_params")}
            for request in read_requests(row, settings=settings, prompts=prompts, cut=1.0)
        ]
        for row in rows
    ]


def raw_passes(
    settings: SynthesisSettings,
    warm_up: Sequence[Request],
    passes: Sequence[Sequence[Request]],
    *,
    engine: Mapping[str, Any],
    variables: Mapping[str, str],
) -> Iterator[Pass]:
    """Passes of `vllm.LLM.chat` with the stage's engine, each over prompts of its own.

    Args:
        settings: the stage's.
        warm_up: requests to get warm with.
        passes: the requests of each pass.
        engine: arguments of the engine that win over the stage's.
        variables: environment variables that win over the stage's.
    """
    model = {"model": resolve_model(settings.model)}
    task = {
        "engine": model | engine_kwargs(settings) | engine,
        "warm_up": warm_up,
        "passes": passes,
    }
    with subprocess.Popen(
        [str(settings.python or sys.executable), str(RAW)],
        env={**os.environ, **runtime_env(settings)["env_vars"], **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        json.dump(task, process.stdin)
        process.stdin.close()
        before = cpu_times()
        for line in process.stdout:
            if line.startswith(MARK):
                found = json.loads(line.removeprefix(MARK))
                if found:
                    foreign = foreign_percent(before, cpu_times())
                    yield Pass(**found | {"foreign": foreign, "texts": tuple(found["texts"])})
                before = cpu_times()


def _chain(
    settings: SynthesisSettings, parts: Sequence[Part], folder: Path
) -> tuple[Link, Link, Corpus]:
    """The two stages and the corpus that they fill."""
    cut = folder / "cut"
    cut.mkdir(parents=True)
    commit_json(cut / "cut.json", {"cut": 1.0})
    commit_json(cut / "model.json", {"content": "all"})
    corpus = Corpus(root=folder / "corpus", recipe={}, parts=parts, models={"synthesis": cut})
    ingest = gated_ingest(_gate(folder), parts[0].name)
    extras = {part.name: part.slice for part in parts}
    links = []
    for spec in (ingest, _ask_stage(settings)):
        tasks = corpus.resolve_stage(spec, extras if spec is ingest else None)
        links.append(Link(spec=spec, tasks={task.work.part: task for task in tasks}))
    return links[0], links[1], corpus


def _gate(folder: Path) -> Path:
    return folder / "gate"


def _ask_stage(settings: SynthesisSettings) -> StageSpec:
    """The stage as a recipe with these settings makes it."""
    source = {"kind": "pydoc", "limit": 1}
    recipe = Recipe.model_validate({"name": "b", "sources": [source], "synthesis": settings})
    (found,) = [step for step in steps(recipe) if step.name == STAGE]
    assert isinstance(found, StageSpec)
    return found
