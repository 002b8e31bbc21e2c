"""What the LLM is to be asked next about each record of a part, given what it has answered."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pipeline.engine.corpus import Task
from pipeline.engine.fingerprint import unit_interval
from pipeline.engine.stage import Work
from pipeline.engine.worker import PartDone, add_result, task_of
from pipeline.synthesis import answers
from pipeline.synthesis.judge import Answer, Failure, captions_of, judge
from pipeline.synthesis.limit import chance
from pipeline.synthesis.prompts import (
    KINDS,
    Fault,
    Prompts,
    build_messages,
    choose_style,
    compact_json,
    json_schema,
)
from pipeline.synthesis.settings import SynthesisSettings

STAGE = "ask"

ERROR_COLUMN = "__inference_error__"
"""Where `ray.data.llm` puts the error of a row that the engine refused."""

PASSED_BY = "nothing to ask"
"""The error of a row of the chain that has no request for the engine."""

CARRIED = (
    "row", "num_requests", "started", "record_id", "kinds", "style", "seed", "attempt",
)  # fmt: skip
"""What an answered row must still have of its request."""

_WHY = {
    "synthesis-malformed-json": "it was not valid JSON",
    "synthesis-cut-off": "the answer was too long and did not come to its end",
    "synthesis-empty": "it was empty",
    "synthesis-too-long": "it is too long",
    "synthesis-wrong-style": "it does not begin as the style does",
    "synthesis-repeats-record": "it only repeats the text",
}

Row = dict[str, Any]


def takes_part(record: Mapping[str, Any], cut: float) -> bool:
    """Whether a row of `records` is asked about: it has a picture and lies below the cut."""
    return record["image_id"] is not None and chance(record["record_id"]) < cut


def select_records(work: Work, cut: float) -> dict[str, tuple[str, ...]]:
    """The captions of the records of a part that take part, by record id, in the part's order."""
    table = work.read("records", ["record_id", "image_id", "caption", "more_captions"])
    return {row["record_id"]: captions_of(row) for row in table.to_pylist() if takes_part(row, cut)}


def read_requests(
    row: dict[str, str], *, settings: SynthesisSettings, prompts: Prompts, cut: float
) -> list[Row]:
    """The requests of the part of a chain's row, as `ray.data.llm` wants them.

    A row for which nothing is to be asked is passed by the engines: it comes as a request that is
    marked as one that an engine has refused, since `ray.data.llm` leaves those alone.
    """
    task = task_of(row, STAGE)
    if task is None:
        return [_passing(row, settings, prompts)]
    started = time.time()
    captions, given = select_records(task.work, cut), answers.kept(task)
    requests = list(open_requests(captions, given, settings=settings, prompts=prompts))
    if not requests:
        return [_passing(conclude(row, task, captions, given, started), settings, prompts)]
    common = {"row": json.dumps(row), "num_requests": len(requests), "started": started}
    return [request | common for request in requests]


def open_requests(
    captions: Mapping[str, Sequence[str]],
    given: Mapping[str, Sequence[Answer]],
    *,
    settings: SynthesisSettings,
    prompts: Prompts,
) -> Iterator[Row]:
    """The next request of each record of a part that wants one, after the answers it has.

    Args:
        captions: what each record states, as `select_records` gives it.
        given: the answers so far, as `answers.kept` gives them.
        settings: what is asked for, and how often.
        prompts: how.
    """
    for record_id, stated in captions.items():
        own = given.get(record_id, [])
        failed = judge(settings, prompts, stated, own).open if own else {}
        if not own or (failed and len(own) < settings.attempts):
            yield _request(settings, prompts, record_id, stated[0], own, failed)


def conclude(
    row: dict[str, str],
    task: Task,
    captions: Mapping[str, Sequence[str]],
    given: Mapping[str, Sequence[Answer]],
    started: float,
) -> dict[str, str]:
    """Commit a part whose records want nothing more; the chain's row with the result."""
    num_rows = answers.commit(task, list(captions), given)
    done = PartDone(
        stage=STAGE,
        part=task.work.part,
        seconds=time.time() - started,
        num_rows=num_rows,
        num_rejects=0,
    )
    return add_result(row, done)


def _request(
    settings: SynthesisSettings,
    prompts: Prompts,
    record_id: str,
    caption: str,
    own: Sequence[Answer] = (),
    failed: Mapping[str, Failure] = MappingProxyType({}),
) -> Row:
    """What an engine is asked about one record, and what the collector wants to know of it."""
    attempt = len(own) + 1
    kinds = [kind for kind in KINDS if not failed or kind in failed]
    faults = [_fault(failed[kind]) for kind in kinds if failed]
    style = choose_style(prompts, record_id, settings.seed)
    seed = int(unit_interval("seed", str(settings.seed), record_id, str(attempt)) * 2**31)
    return {
        "record_id": record_id,
        "kinds": kinds,
        "style": style,
        "seed": seed,
        "attempt": attempt,
        ERROR_COLUMN: "",
        "messages": build_messages(prompts, caption, style, faults),
        "sampling_params": {
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": settings.max_tokens,
            "seed": seed,
            # As text: Arrow would give every schema the union of all schemas' fields.
            "structured_outputs": {"json": compact_json(json_schema(prompts, style, kinds))},
        },
    }


def _fault(failure: Failure) -> Fault:
    why = _WHY.get(failure.why.reason, failure.why.detail)
    if failure.kind == "negative" and failure.why.reason == "synthesis-repeats-record":
        why = "the picture shows it"
    return Fault(kind=failure.kind, text=failure.text, why=why)


def _passing(row: dict[str, str], settings: SynthesisSettings, prompts: Prompts) -> Row:
    """A row of the chain in the form of a request, so that all rows have the same columns."""
    marks = {"row": json.dumps(row), "num_requests": 0, "started": 0.0, ERROR_COLUMN: PASSED_BY}
    return _request(settings, prompts, "", "") | marks
