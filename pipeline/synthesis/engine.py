"""Runs the LLM over a chain's rows.

Parts become rows of one request each, the rows go through a backend that answers as many at a time
as it can, and one collector puts the parts together again, commits them and passes them on. No part
waits for another, so that no engine idles at a part's end, nor for the end of ingest.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.engine.fingerprint import unit_interval
from pipeline.engine.stage import Output, Work
from pipeline.engine.worker import add_result, task_of
from pipeline.synthesis.backends import answer
from pipeline.synthesis.collector import ERROR_COLUMN, PASSED_BY, STAGE, Collector, commit_part
from pipeline.synthesis.limit import chance, read_cut
from pipeline.synthesis.prompts import (
    Prompts,
    build_messages,
    choose_style,
    compact_json,
    json_schema,
    load_prompts,
)
from pipeline.synthesis.settings import SynthesisSettings
from pipeline.synthesis.weights import model_fingerprint

if TYPE_CHECKING:
    from ray.data import Dataset

_LIGHT = 0.5  # logical CPUs of a stage that only moves rows

_CARRIED = (
    "row",
    "num_requests",
    "started",
    "position",
    "record_id",
    "caption",
    "style",
    "seed",
    "attempt",
)

Row = dict[str, Any]


class EngineDataflow:
    """The steps that write and commit variants with an LLM.

    The image records with `chance(record_id)` below the pinned cut take part; a part without any is
    committed empty. Ray Data starts the engines with the chain.

    Reads: records.
    Writes: variants.
    Rejects: `synthesis-malformed-json`, `synthesis-cut-off`, `synthesis-empty`,
        `synthesis-too-long`, `synthesis-wrong-style`, `synthesis-repeats-record`,
        `synthesis-engine-error`; one for each text that did not come about. The record stays.
    Source: none.
    """

    def __init__(self, settings: SynthesisSettings, models: Mapping[str, Path]) -> None:
        self._settings = settings
        self._cut = read_cut(models["synthesis"])

    def needs(self, work: Work) -> bool:
        """Whether the part has a record that takes part."""
        return bool(select_records(work, self._cut))

    def __call__(self, dataset: Dataset) -> Dataset:
        """Requests, answers, and parts again.

        Raises:
            UserError: when the model, a prompt file or vLLM's interpreter is missing.
        """
        import ray

        settings = self._settings
        prompts = load_prompts(settings)
        read = partial(read_requests, settings=settings, prompts=prompts, cut=self._cut)
        requests = dataset.flat_map(read, num_cpus=_LIGHT)
        return answer(settings, requests, carried=_CARRIED).map_batches(
            Collector,
            fn_constructor_kwargs={
                "prompts": prompts,
                "model": f"{settings.model}@{model_fingerprint(settings.model)}",
                "max_tokens": settings.max_tokens,
            },
            batch_format="pyarrow",
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=1),
            num_cpus=_LIGHT,
        )


class SilentWorker:
    """The stage without an LLM (`synthesis.limit: 0`, or no picture): parts get no variants.

    Reads: nothing.
    Writes: `variants`, empty.
    Rejects: nothing.
    Source: none.
    """

    def __init__(self, settings: SynthesisSettings, models: Mapping[str, Path]) -> None:
        """Needs nothing."""

    def __call__(self, work: Work) -> Output:  # noqa: ARG002
        """No rows."""
        return Output(rows=[])


def select_records(work: Work, cut: float) -> list[str]:
    """The ids of the records of a part that are to be synthesized, in the part's order."""
    table = work.read("records", ["record_id", "image_id"])
    ids = zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True)
    return [record for record, image in ids if image is not None and chance(record) < cut]


def read_requests(
    row: dict[str, str], *, settings: SynthesisSettings, prompts: Prompts, cut: float
) -> list[Row]:
    """The requests of the part of a chain's row, as the processor wants them.

    A row for which nothing is to be asked is passed by the engines: it comes as a request that is
    marked as one that an engine has refused, since `ray.data.llm` leaves those alone.
    """
    ask = partial(_request, settings=settings, prompts=prompts)
    task = task_of(row, STAGE)
    if task is None:
        return [ask(row, "", "") | {ERROR_COLUMN: PASSED_BY}]
    started = time.time()
    chosen = {record: index for index, record in enumerate(select_records(task.work, cut))}
    if not chosen:
        row = add_result(row, commit_part(task, [], [], started))
        return [ask(row, "", "") | {ERROR_COLUMN: PASSED_BY}]
    table = task.work.read("records", ["record_id", "caption"])
    records = zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True)
    return [
        ask(row, record_id, caption)
        | {"num_requests": len(chosen), "started": started, "position": chosen[record_id]}
        for record_id, caption in records
        if record_id in chosen
    ]


def _request(
    row: Mapping[str, str],
    record_id: str,
    caption: str,
    *,
    settings: SynthesisSettings,
    prompts: Prompts,
) -> Row:
    """What an engine is asked about one record, and what the collector wants to know of it."""
    return {
        "row": json.dumps(row),
        "num_requests": 0,
        "started": 0.0,
        "position": 0,
        "record_id": record_id,
        "caption": caption,
        "attempt": 1,
        ERROR_COLUMN: "",
        **_ask(settings, prompts, record_id, caption),
    }


def _ask(settings: SynthesisSettings, prompts: Prompts, record_id: str, caption: str) -> Row:
    style = choose_style(prompts, record_id, settings.seed)
    seed = int(unit_interval("seed", str(settings.seed), record_id) * 2**31)
    return {
        "style": style,
        "seed": seed,
        "messages": build_messages(prompts, caption, style),
        "sampling_params": {
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": settings.max_tokens,
            "seed": seed,
            # As text: Arrow would give every schema the union of all schemas' fields.
            "structured_outputs": {"json": compact_json(json_schema(prompts, style))},
        },
    }
