"""Keeps the LLM's answers as they come, and sends a part on when its last one is there.

Answers arrive in the order in which the engine finishes them, parts mixed. One actor gathers them,
so that the driver holds no rows. What it has taken in is committed; in memory are only ids.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.engine.corpus import Task
from pipeline.engine.worker import Advance, send_again, task_of
from pipeline.synthesis import answers
from pipeline.synthesis.prompts import Prompts
from pipeline.synthesis.requests import (
    ERROR_COLUMN,
    PASSED_BY,
    STAGE,
    conclude,
    open_requests,
    select_records,
)
from pipeline.synthesis.settings import SynthesisSettings

Row = dict[str, Any]


class Collector:
    """Turns answers into rows of the chain again; what Ray Data's actor is made of."""

    def __init__(
        self, *, settings: SynthesisSettings, prompts: Prompts, cut: float, model: str
    ) -> None:
        self._settings = settings
        self._prompts = prompts
        self._cut = cut
        self._model = model
        self._answered: dict[str, set[str]] = defaultdict(set)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Take answers in, and pass on the chain's rows whose part has the last of its round.

        Returns:
            Rows of the chain, and one that says how many answers have come in.
        """
        rows: list[dict[str, str]] = []
        by_part: dict[str, list[Row]] = defaultdict(list)
        for answer in batch.to_pylist():
            if answer[ERROR_COLUMN] == PASSED_BY:
                rows.append(json.loads(answer["row"]))
            else:
                by_part[answer["row"]].append(answer)
        for row, given in by_part.items():
            rows += self._take(json.loads(row), given)
        every = [answer for given in by_part.values() for answer in given]
        tokens = sum(int(answer.get("num_generated_tokens") or 0) for answer in every)
        return pa.Table.from_pylist(
            [*rows, Advance(stage=STAGE, num_records=len(every), num_tokens=tokens).row()]
        )

    def _take(self, row: dict[str, str], given: Sequence[Row]) -> list[dict[str, str]]:
        """Keep some answers of one part; its row, when nothing of this round is missing.

        An answer that comes again counts once: Ray Data may deliver a row a second time.
        """
        task = task_of(row, STAGE)
        assert task is not None, "a row without a task asks for nothing"  # noqa: S101
        answers.keep(task, [self._answer(answer) for answer in given])
        answered = self._answered[row["part"]]
        answered.update(answer["record_id"] for answer in given)
        if len(answered) < given[0]["num_requests"]:
            return []
        del self._answered[row["part"]]
        return [self._send_on(row, task, given[0]["started"])]

    def _send_on(self, row: dict[str, str], task: Task, started: float) -> dict[str, str]:
        captions, given = select_records(task.work, self._cut), answers.kept(task)
        more = open_requests(captions, given, settings=self._settings, prompts=self._prompts)
        if next(more, None) is not None:
            return send_again(row, STAGE)
        return conclude(row, task, captions, given, started)

    def _answer(self, row: Row) -> Row:
        """A row of the table `answers`."""
        return {
            **{name: row[name] for name in ("record_id", "attempt", "kinds", "style", "seed")},
            # `ray.data.llm` gives a refused request an empty text.
            "text": None if row[ERROR_COLUMN] else row["generated_text"],
            "error": row[ERROR_COLUMN] or None,
            "model": self._model,
            "prompt": self._prompts.fingerprint,
            "num_prompt_tokens": row.get("num_input_tokens"),
            "num_output_tokens": row.get("num_generated_tokens"),
        }
