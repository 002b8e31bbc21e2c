"""Gathers the LLM's answers by part and commits a part when its last answer is there.

Answers arrive in the order in which the engine finishes them, parts mixed. One actor gathers them,
so that the driver holds no rows; the actor holds the texts of the parts in flight.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.schemas import REJECTS, VARIANTS, reject
from pipeline.engine.storage import to_path
from pipeline.engine.tables import write_table
from pipeline.synthesis.prompts import Answer, Prompts, Rejected, parse, shorten

STAGE = "synthesize"
ERROR_COLUMN = "__inference_error__"
"""Where `ray.data.llm` puts the error of a row that the engine refused."""

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
        """Take answers in; tells for each what it cost and whether it completed its part."""
        return pa.Table.from_pylist([self._take(row) for row in batch.to_pylist()])

    def _take(self, row: Row) -> Row:
        """One answer. A row that Ray Data delivers a second time replaces the first."""
        part = self._open.setdefault(row["part"], _OpenPart())
        variants, rejects = self.judge(row)
        part.answered[row["record_id"]] = (row["position"], variants, rejects)
        event = {
            "part": row["part"],
            "num_tokens": int(row.get("num_generated_tokens") or 0),
            "num_rows": 0,
            "num_rejects": 0,
            "seconds": 0.0,
            "is_done": len(part.answered) == row["num_requests"],
        }
        if event["is_done"]:
            ordered = sorted(part.answered.values(), key=lambda answer: answer[0])
            all_variants = [variant for _, found, _ in ordered for variant in found]
            all_rejects = [rejected for _, _, found in ordered for rejected in found]
            write_table(to_path(row["rejects"]), all_rejects, REJECTS)
            write_table(
                to_path(row["output"]), all_variants, VARIANTS
            )  # the commit, so it goes last
            del self._open[row["part"]]
            event |= {
                "num_rows": len(all_variants),
                "num_rejects": len(all_rejects),
                "seconds": time.time() - row["started"],
            }
        return event

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
