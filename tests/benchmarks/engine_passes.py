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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.recipe import Recipe
from jobs.stages import steps
from pipeline.engine.corpus import Corpus, Task
from pipeline.engine.parts import Part
from pipeline.engine.ray_session import connect_to_ray
from pipeline.engine.runner import Link
from pipeline.engine.schemas import RECORDS
from pipeline.engine.stage import StageSpec
from pipeline.engine.storage import commit_json
from pipeline.engine.tables import connect, write_table
from pipeline.engine.worker import PartDone, RunContext
from pipeline.synthesis.answers import kept as answers_kept
from pipeline.synthesis.backends import rows_per_batch
from pipeline.synthesis.backends.vllm import engine_kwargs, runtime_env
from pipeline.synthesis.prompts import load_prompts
from pipeline.synthesis.requests import read_requests
from pipeline.synthesis.settings import SynthesisSettings
from pipeline.synthesis.weights import resolve_model
from tests.benchmarks.critics import records
from tests.benchmarks.foreign_load import CpuMeter, CpuTimes, foreign_percent
from tests.benchmarks.gated_runner import GatedRunner
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


def our_pass(
    settings: SynthesisSettings, parts: Sequence[Part], folder: Path, *, num_warm_up: int
) -> Pass:
    """The stage, in a chain of which all parts but the first are held back.

    The clock starts when the first part's requests are answered, which are so many, but for a last
    batch that is not full: it waits for the next part's. It ends when all parts are committed, so
    that what Ray Data needs to bring the first request to the engine and the last answer home is in
    it. Only tokens that are written meanwhile count.
    """
    import ray

    ask, corpus = _chain(settings, parts, folder)
    outputs = [corpus.tables["answers"][part.name] for part in parts]
    warm = num_warm_up - num_warm_up % rows_per_batch(settings)
    connect_to_ray()
    context = RunContext(run="benchmark", attempts=folder / "attempts")
    gate = folder / "gate"
    runner = GatedRunner(num_workers=1, context=context, gate=gate)
    stop = threading.Event()
    with CpuMeter() as meter, ThreadPoolExecutor(1) as pool:
        # Not by what the chain yields: Ray Data keeps a block back until the next one is there.
        opened = pool.submit(_open_gate, meter, ask.tasks[parts[0].name], warm, gate, stop)
        try:
            for done in runner.run_chain([ask], corpus.models):
                assert not (isinstance(done, PartDone) and done.error), done
        finally:
            stop.set()
        end = meter.read()
    ray.shutdown()  # none of its processes may stand beside the rival
    begin, num_before = opened.result()
    (num_first, _), (num_others, texts) = _written(outputs[:1]), _written(outputs[1:])
    return Pass(
        seconds=max(path.stat().st_mtime for path in outputs) - begin.at,
        num_tokens=num_first + num_others - num_before,
        foreign=foreign_percent(begin, end),
        texts=texts,
    )


def _written(outputs: Sequence[Path]) -> tuple[int, tuple[str, ...]]:
    """The tokens and the texts of the answers in some parts."""
    rows = connect({"answers": outputs}).sql("SELECT num_output_tokens, text FROM answers")
    answers = rows.fetchall()
    return sum(num_tokens for num_tokens, _ in answers), tuple(text for _, text in answers)


def _open_gate(
    meter: CpuMeter, first: Task, num_answers: int, gate: Path, stop: threading.Event
) -> tuple[CpuTimes, int]:
    """Lets the parts through when the first one has so many answers; the time, and their tokens."""
    kept: list[Mapping[str, Any]] = []
    while len(kept) < num_answers and not first.output.exists() and not stop.wait(0.1):
        with suppress(FileNotFoundError):  # the part is being committed
            kept = [answer for answers in answers_kept(first).values() for answer in answers]
    now = meter.read()
    gate.touch()
    if first.output.exists():
        return now, _written([first.output])[0]
    return now, sum(answer["num_output_tokens"] for answer in kept)


def read_prompts(
    settings: SynthesisSettings, parts: Sequence[Part], folder: Path
) -> list[list[Request]]:
    """What the stage asks its engine about each part."""
    ask, _ = _chain(settings, parts, folder)
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
    with (
        CpuMeter() as meter,
        subprocess.Popen(
            # -P: the folder of the script has a `tokenize.py`, and Python's own is wanted.
            [str(settings.python or sys.executable), "-P", str(RAW)],
            env={**os.environ, **runtime_env(settings)["env_vars"], **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        json.dump(task, process.stdin)
        process.stdin.close()
        before = meter.read()
        for line in process.stdout:
            if line.startswith(MARK):
                found = json.loads(line.removeprefix(MARK))
                if found:
                    foreign = foreign_percent(before, meter.read())
                    yield Pass(**found | {"foreign": foreign, "texts": tuple(found["texts"])})
                before = meter.read()


def _chain(settings: SynthesisSettings, parts: Sequence[Part], folder: Path) -> tuple[Link, Corpus]:
    """The stage, and a corpus that holds the records of the parts."""
    cut = folder / "cut"
    cut.mkdir(parents=True)
    commit_json(cut / "cut.json", {"cut": 1.0})
    commit_json(cut / "model.json", {"content": "all"})
    corpus = Corpus(root=folder / "corpus", recipe={}, parts=parts, models={"synthesis": cut})
    ingest, spec = _stages(settings)
    for part, task in zip(parts, corpus.resolve_stage(ingest), strict=True):
        rows = [_record(part.name, caption) for caption in part.slice["captions"]]
        write_table(task.output, rows, RECORDS)
    tasks = corpus.resolve_stage(spec)
    return Link(spec=spec, tasks={task.work.part: task for task in tasks}), corpus


def _stages(settings: SynthesisSettings) -> tuple[StageSpec, StageSpec]:
    """Ingest and the stage, as a recipe with these settings makes them."""
    source = {"kind": "pydoc", "limit": 1}
    recipe = Recipe.model_validate({"name": "b", "sources": [source], "synthesis": settings})
    found = {step.name: step for step in steps(recipe)}
    ingest, spec = found["ingest"], found[STAGE]
    assert isinstance(ingest, StageSpec)
    assert isinstance(spec, StageSpec)
    return ingest, spec


def _record(part: str, caption: str) -> dict[str, object]:
    name = f"{part}-{caption}"
    return {
        "record_id": name, "source": "benchmark", "key": name,
        "image_id": name, "image": b"png", "width": 8, "height": 8,
        "caption": caption, "more_captions": [], "repairs": [], "opt_outs": [],
        "licence": "CC0-1.0", "attribution": "nobody", "split": "train", "origin": "benchmark",
    }  # fmt: skip
