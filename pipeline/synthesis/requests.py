"""What the LLM is to be asked next about each record of a part, given what it has answered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from pipeline.engine.corpus import Task
from pipeline.engine.fingerprint import fingerprint, hash_bytes, unit_interval
from pipeline.engine.stage import Work
from pipeline.engine.worker import task_of
from pipeline.synthesis import answers
from pipeline.synthesis.allocation import Chances, draw_style, form_arm, is_drawn
from pipeline.synthesis.budget import count_written
from pipeline.synthesis.critics.judge import judge_messages, judge_schema
from pipeline.synthesis.forms import KINDS, Kind, forms_of, json_schema
from pipeline.synthesis.judge import Answer, Failure, Judgement, candidate_of, captions_of, judge
from pipeline.synthesis.limit import chance
from pipeline.synthesis.prompts import JUDGE, Fault, Prompts, build_messages, compact_json
from pipeline.synthesis.related import link_related
from pipeline.synthesis.settings import SynthesisSettings
from pipeline.synthesis.vision import PICTURES, add_pictures

STAGE = "ask"

ERROR_COLUMN = "__inference_error__"
"""Where `ray.data.llm` puts the error of a row that the engine refused."""

PASSED_BY = "nothing to ask"
"""The error of a row of the chain that has no request for the engine."""

CARRIED = (
    "row", "num_requests", "started", "record_id", "kind", "role", "forms", "style", "next_id",
    "seed", "temperature", "attempt", "request",
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
    started = time.time()
    requests: list[Row] = []
    if task := task_of(row, STAGE):
        captions, given = select_records(task.work, cut), answers.kept(task)
        requests = list(open_requests(task, captions, given, settings=settings, prompts=prompts))
        if settings.vision:
            requests = add_pictures(requests, task.work, settings.vision_max_side)
    if not requests:
        return [_passing(row, settings, prompts) | {"started": started}]
    common = {"row": json.dumps(row), "num_requests": len(requests), "started": started}
    return [request | common | {"request": _hash(request)} for request in requests]


def open_requests(
    task: Task,
    captions: Mapping[str, Sequence[str]],
    given: Mapping[str, Sequence[Answer]],
    *,
    settings: SynthesisSettings,
    prompts: Prompts,
) -> Iterator[Row]:
    """The next requests about each record of a part, after the answers it has.

    Args:
        task: the part.
        captions: what each record states, as `select_records` gives it.
        given: the answers so far, as `answers.kept` gives them.
        settings: what is asked for, how often, and for how many tokens a record.
        prompts: how.
    """
    share = settings.shares.get("interleave", 0.0)
    linked = {
        record_id: stated
        for record_id, stated in captions.items()
        if unit_interval("kind", record_id, "interleave") < share
    }
    writer = _Writer(
        settings=settings,
        prompts=prompts,
        captions=captions,
        nexts=link_related(linked),
        chances=cache(partial(answers.pinned_chances, task, settings=settings)),
    )
    for record_id in captions:
        yield from writer.requests(record_id, given.get(record_id, ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writer:
    """Words the requests about the records of a part.

    Attributes:
        settings: what is asked for, and how often.
        prompts: how.
        captions: what each record states.
        nexts: for each record that interleaved text leads on from, the one that follows.
        chances: by attempt, how often an arm is tried.
    """

    settings: SynthesisSettings
    prompts: Prompts
    captions: Mapping[str, Sequence[str]]
    nexts: Mapping[str, str]
    chances: Callable[[int], Chances]

    def requests(self, record_id: str, own: Sequence[Answer]) -> Iterator[Row]:
        """What is to be asked about a record after its answers so far."""
        found = judge(self.settings, self.prompts, self.captions, own)
        yield from self._judgements(record_id, own, found)
        styles, seed = self.prompts.styles, str(self.settings.seed)
        style = own[0]["style"] if own else draw_style(self.chances(1), styles, seed, record_id)
        left = self.settings.tokens_per_record
        if left is not None:
            left -= sum(count_written(each["text"], each["num_output_tokens"]) for each in own)
        # In an order of the record's own: tokens that do not suffice for all kinds are then
        # missing for another one each time.
        for kind in sorted(KINDS, key=lambda kind: unit_interval("turn", record_id, kind)):
            attempt = 1 + sum(
                answer["kind"] == kind and answer["role"] == "write" for answer in own
            )
            if attempt > self.settings.attempts or not self._takes_kind(record_id, kind):
                continue
            if left is not None and left < self.settings.max_tokens:
                return
            if forms := self._open_forms(record_id, kind, attempt, found):
                left = None if left is None else left - self.settings.max_tokens
                faults = [_fault(found.open[form]) for form in forms if attempt > 1]
                yield self.write(record_id, kind, attempt, forms, style=style, faults=faults)

    def _judgements(self, record_id: str, own: Sequence[Answer], found: Judgement) -> Iterator[Row]:
        """What the LLM is to judge: a request for the texts of each answer that wait for that."""
        for answer in own:
            forms = [
                form
                for form, waiting in found.pending.items()
                if waiting.answer is answer and waiting.roles == {"judge"}
            ]
            if forms:
                candidates = [
                    candidate_of(
                        self.prompts, self.captions, answer, form, found.pending[form].text
                    )
                    for form in forms
                ]
                yield {
                    **self._request(record_id, answer["kind"], answer["attempt"], forms, "judge"),
                    "style": answer["style"],
                    "next_id": answer["next_id"] or "",
                    "temperature": 0.0,
                    "messages": judge_messages(self.prompts.templates[JUDGE], candidates),
                    "sampling_params": self._sampling(0.0, 0, judge_schema(forms)),
                }

    def _takes_kind(self, record_id: str, kind: Kind) -> bool:
        """Whether a record is among the share that a kind is asked about."""
        if kind == "interleave":
            return record_id in self.nexts  # the share is of those that were linked
        return unit_interval("kind", record_id, kind) < self.settings.shares.get(kind, 0)

    def _open_forms(self, record_id: str, kind: Kind, attempt: int, found: Judgement) -> list[str]:
        return [
            form
            for form in forms_of(kind)
            if (attempt == 1 or form in found.open)
            and is_drawn(self.chances(attempt), form_arm(form, attempt), record_id)
        ]

    def write(
        self,
        record_id: str,
        kind: Kind,
        attempt: int,
        forms: Sequence[str],
        *,
        style: str,
        faults: Sequence[Fault] = (),
    ) -> Row:
        """A request for texts."""
        next_id = self.nexts.get(record_id, "") if kind == "interleave" else ""
        drawn = unit_interval("seed", str(self.settings.seed), record_id, kind, str(attempt))
        seed = int(drawn * 2**31)
        is_first = attempt == 1
        temperature = self.settings.temperature if is_first else self.settings.reroll_temperature
        return {
            **self._request(record_id, kind, attempt, forms, "write"),
            "style": style,
            "next_id": next_id,
            "seed": seed,
            "temperature": temperature,
            "messages": build_messages(
                self.prompts,
                kind,
                self.captions[record_id][0],
                style=style,
                next_caption=self.captions[next_id][0] if next_id else "",
                faults=faults,
            ),
            "sampling_params": self._sampling(
                temperature, seed, json_schema(forms, self.prompts.styles[style])
            ),
        }

    def _request(
        self, record_id: str, kind: str, attempt: int, forms: Sequence[str], role: str
    ) -> Row:
        """What the collector wants to know of a request."""
        return {
            "record_id": record_id, "kind": kind, "role": role, "attempt": attempt,
            "forms": list(forms), "seed": 0, ERROR_COLUMN: "",
        }  # fmt: skip

    def _sampling(self, temperature: float, seed: int, schema: Mapping[str, object]) -> Row:
        return {
            "temperature": temperature,
            "top_p": self.settings.top_p,
            "max_tokens": self.settings.max_tokens,
            "seed": seed,
            # As text: Arrow would give every schema the union of all schemas' fields.
            "structured_outputs": {"json": compact_json(schema)},
        }


def _fault(failure: Failure) -> Fault:
    why = _WHY.get(failure.why.reason, failure.why.detail)
    if failure.form == "absent" and failure.why.reason == "synthesis-repeats-record":
        why = "the picture shows it"
    return Fault(form=failure.form, text=failure.text, why=why)


def _hash(request: Row) -> str:
    """What an answer is recorded under."""
    seen = [hash_bytes(picture) for picture in request.get(PICTURES, ())]
    return fingerprint(
        messages=request["messages"], sampling=request["sampling_params"], pictures=seen
    )


def _passing(row: dict[str, str], settings: SynthesisSettings, prompts: Prompts) -> Row:
    """A row of the chain in the form of a request, so that all rows have the same columns."""
    nobody = _Writer(
        settings=settings, prompts=prompts, captions={"": ("",)}, nexts={}, chances=lambda _: {}
    )
    style = next(iter(prompts.styles))
    marks = {
        "row": json.dumps(row), "num_requests": 0, "started": 0.0, "request": "",
        ERROR_COLUMN: PASSED_BY,
    }  # fmt: skip
    if settings.vision:
        marks[PICTURES] = []
    return nobody.write("", "caption", 1, ["sentence"], style=style) | marks
