"""Gathers the LLM's answers by part and commits a part when its last answer is there.

Answers arrive in the order in which the engine finishes them, parts mixed. One actor gathers them,
so that the driver holds no rows; the actor holds the texts of the parts in flight.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.engine.corpus import Task
from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.schemas import REJECTS, VARIANTS, reject
from pipeline.engine.tables import write_table
from pipeline.engine.worker import Advance, PartDone, add_result, task_of
from pipeline.synthesis.prompts import Answer, Prompts, Rejected, parse, shorten

STAGE = "synthesize"
ERROR_COLUMN = "__inference_error__"
"""Where `ray.data.llm` puts the error of a row that the engine refused."""

PASSED_BY = "nothing to ask"
"""The error of a row of the chain that has no request for the engine."""

Row = dict[str, Any]


@dataclass(kw_only=True)
class _OpenPart:
    """The answers of a part so far, each with its record's position in the part."""

    answered: dict[str, tuple[int, list[Row], list[Row]]] = field(default_factory=dict)


class Collector:
    """Turns rows of answers into committed parts; what Ray Data's actor is made of."""

    def __init__(self, *, prompts: Prompts, model: str, max_tokens: int) -> None:
        self._prompts = prompts
        self._model = model
        self._max_tokens = max_tokens
        self._open: dict[str, _OpenPart] = {}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Take answers in, and pass on the chain's rows whose part is done.

        Returns:
            Rows of the chain, and one that says how many answers have come in.
        """
        rows: list[dict[str, str]] = []
        num_records = num_tokens = 0
        for answer in batch.to_pylist():
            row = json.loads(answer["row"])
            if answer[ERROR_COLUMN] == PASSED_BY:
                rows.append(row)
                continue
            num_records += 1
            num_tokens += int(answer.get("num_generated_tokens") or 0)
            if done := self._take(row, answer):
                rows.append(add_result(row, done))
        made = Advance(stage=STAGE, num_records=num_records, num_tokens=num_tokens)
        return pa.Table.from_pylist([*rows, made.row()])

    def _take(self, row: dict[str, str], answer: Row) -> PartDone | None:
        """What became of the part when this is its last answer.

        One that comes again counts once: Ray Data may deliver a row a second time.
        """
        part = self._open.setdefault(row["part"], _OpenPart())
        part.answered[answer["record_id"]] = (answer["position"], *self.judge(answer))
        if len(part.answered) < answer["num_requests"]:
            return None
        ordered = sorted(part.answered.values(), key=lambda answered: answered[0])
        task = task_of(row, STAGE)
        assert task is not None, "a row without a task asks for nothing"  # noqa: S101
        done = commit_part(
            task,
            [variant for _, found, _ in ordered for variant in found],
            [rejected for _, _, found in ordered for rejected in found],
            answer["started"],
        )
        del self._open[row["part"]]
        return done

    def judge(self, row: Mapping[str, Any]) -> tuple[list[Row], list[Row]]:
        """The variants that an answer gives, and the rejects for what it does not."""
        answer = self._parse(row)
        request = {
            "record_id": row["record_id"],
            "prompt": self._prompts.fingerprint,
            "attempt": row["attempt"],
        }
        variants = [
            {
                "record_id": row["record_id"],
                "variant_id": fingerprint(record_id=row["record_id"], kind=kind, text=text),
                "kind": kind,
                "text": text,
                "style": row["style"] if kind == "style" else None,
                "attempt": row["attempt"],
                "model": self._model,
                "prompt": self._prompts.fingerprint,
                "seed": row["seed"],
                "num_prompt_tokens": row["num_input_tokens"],
                "num_output_tokens": row["num_generated_tokens"],
            }
            for kind, text in answer.texts.items()
        ]
        # The record itself stays, with its own caption: a reject names the text that did not come
        # about, by the request that it was asked for with.
        rejects = [
            reject(
                record_id=row["record_id"],
                variant_id=fingerprint(kind=kind, **request),
                stage=STAGE,
                reason=why.reason,
                detail=f"{kind}: {why.detail}",
            )
            for kind, why in answer.rejected.items()
        ]
        return variants, rejects

    def _parse(self, row: Mapping[str, Any]) -> Answer:
        if error := row.get(ERROR_COLUMN):
            why = Rejected("synthesis-engine-error", shorten(str(error)))
            return Answer(texts={}, rejected=dict.fromkeys(("caption", "style", "negative"), why))
        return parse(
            self._prompts,
            row["generated_text"],
            caption=row["caption"],
            style=row["style"],
            complete=row["num_generated_tokens"] < self._max_tokens,
        )


def commit_part(
    task: Task, variants: Sequence[Row], rejects: Sequence[Row], started: float
) -> PartDone:
    """Write a part's variants and rejects; the variants go last, since they are the commit."""
    write_table(task.rejects, rejects, REJECTS)
    write_table(task.output, variants, VARIANTS)
    return PartDone(
        stage=STAGE,
        part=task.work.part,
        seconds=time.time() - started,
        num_rows=len(variants),
        num_rejects=len(rejects),
    )
