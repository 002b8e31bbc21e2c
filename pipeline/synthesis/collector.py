"""Keeps the LLM's answers as they come, and sends a part on when its last one is there.

Answers arrive in the order in which the engine finishes them, parts mixed. One actor gathers them,
so that the driver holds no rows. What it has taken in is committed; in memory are only ids.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.engine.corpus import Task
from pipeline.engine.worker import Advance, PartDone, add_result, leave, send_again, task_of
from pipeline.synthesis import answers
from pipeline.synthesis.allocation import form_arm, style_arm
from pipeline.synthesis.backends.errors import REFUSED, classify
from pipeline.synthesis.backends.health import WINDOW, FirstAnswers, Health, is_fault
from pipeline.synthesis.budget import FILLER, SPENT, key_of, spent_tokens, written_tokens
from pipeline.synthesis.critics.clip import OWN, write_clip_scores
from pipeline.synthesis.judge import judge
from pipeline.synthesis.parsing import Rejected, read_texts
from pipeline.synthesis.prompts import Prompts
from pipeline.synthesis.requests import (
    ERROR_COLUMN,
    PASSED_BY,
    STAGE,
    open_requests,
    select_records,
)
from pipeline.synthesis.settings import SynthesisSettings

Row = dict[str, Any]


class Collector:
    """Turns answers into rows of the chain again; what Ray Data's actor is made of."""

    def __init__(
        self,
        *,
        settings: SynthesisSettings,
        prompts: Prompts,
        cut: float,
        model: str,
        num_parts: int,
        scorer: Any = None,  # noqa: ANN401 - `filters` has it: see `EngineDataflow.scorer`
        budget: Any = None,  # noqa: ANN401 - Ray's types know nothing of an async actor's methods
    ) -> None:
        self._settings = settings
        self._prompts = prompts
        self._cut = cut
        self._model = model
        self._scorer = scorer
        self._budget = budget
        self._num_parts = num_parts
        self._health = Health(settings.backend)
        self._first = FirstAnswers()
        self._rounds: dict[str, _Round] = {}
        self._sent_on: set[str] = set()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Take answers in, and pass on the chain's rows whose part has the last of its round.

        Returns:
            Rows of the chain, and one that says how many answers have come in.

        Raises:
            UserError: when the backend is sick.
        """
        rows: list[dict[str, str]] = []
        by_part: dict[str, list[Row]] = defaultdict(list)
        for answer in batch.to_pylist():
            if answer[ERROR_COLUMN] == FILLER:
                continue
            if answer[ERROR_COLUMN] == PASSED_BY:
                rows.append(self._pass_on(json.loads(answer["row"]), answer["started"]))
            else:
                by_part[answer["row"]].append(answer)
        for row, given in by_part.items():
            self._take(json.loads(row), given)
        self._health.check()
        if self._settings.backend != "replay":  # what was recorded is paid for
            self._first.check()
        self._sent_on.update(row["part"] for row in rows)
        rows += map(self._send_on, self._settled())
        every = [row for given in by_part.values() for row in given if row[ERROR_COLUMN] != SPENT]
        if self._budget is not None:
            import ray

            spent = [(key_of(row), spent_tokens(row)) for row in every]
            ray.get(self._budget.settle.remote(spent))
        advance = Advance(
            stage=STAGE,
            num_records=len(every),
            num_tokens=sum(map(written_tokens, every)),
            notices="\n".join(filter(None, (row.get("notices") for row in every))),
        )
        return pa.Table.from_pylist([*rows, advance.row()])

    def _take(self, row: dict[str, str], given: Sequence[Row]) -> None:
        """Keep some answers of one part, but not yet what may have failed by the backend's fault.

        An answer that comes again counts once: Ray Data may deliver a row a second time.
        """
        part = row["part"]
        if part in self._sent_on:
            return
        if part not in self._rounds:
            task = task_of(row, STAGE)
            assert task is not None, "a row without a task asks for nothing"  # noqa: S101
            self._rounds[part] = _Round(row=row, task=task, started=given[0]["started"])
        now = self._rounds[part]
        through = [answer for answer in given if answer[ERROR_COLUMN] != SPENT]
        for answer in through:
            self._health.note(answer[ERROR_COLUMN])
            if answer["role"] == "write" and answer["attempt"] == 1:
                self._note_first(answer)
        failed = [answer for answer in through if is_fault(answer[ERROR_COLUMN])]
        answered = [answer for answer in through if not is_fault(answer[ERROR_COLUMN])]
        if answered:
            answers.keep(now.task, [self._answer(answer) for answer in answered])
        now.failed += [self._answer(answer) for answer in failed]
        now.keys.update(map(key_of, given))
        now.is_cut_short |= len(through) < len(given)
        if len(now.keys) == given[0]["num_requests"] and now.settled_at is None:
            now.settled_at = self._health.num_seen + (WINDOW if now.failed else 0)

    def _note_first(self, answer: Row) -> None:
        error = answer[ERROR_COLUMN]
        if not error:
            complete = answer.get("finish_reason") != "length"
            found = read_texts(answer["generated_text"] or "", answer["forms"], complete=complete)
            why = (found.reason, found.detail) if isinstance(found, Rejected) else ()
            self._first.note(*why)
        elif classify(error)[0] == REFUSED:
            self._first.note(*classify(error))

    def _settled(self) -> list[_Round]:
        """The rounds that have ended and whose failures, if any, are the requests' own."""
        ended = {part: now for part, now in self._rounds.items() if now.settled_at is not None}
        is_last = len(self._sent_on) + len(ended) == self._num_parts
        if is_last and any(now.failed for now in ended.values()):
            self._health.check_at_the_end()
        settled = {
            part: now
            for part, now in ended.items()
            if is_last or (now.settled_at or 0) <= self._health.num_seen
        }
        for part, now in settled.items():
            del self._rounds[part]
            self._sent_on.add(part)
            if now.failed:
                answers.keep(now.task, now.failed)
        return list(settled.values())

    def _pass_on(self, row: dict[str, str], started: float) -> dict[str, str]:
        """A row that asked for nothing: of another stage, or of a part that is complete."""
        task = task_of(row, STAGE)
        return self._send_on(_Round(row=row, task=task, started=started)) if task else row

    def _send_on(self, now: _Round) -> dict[str, str]:
        row, task = now.row, now.task
        if now.is_cut_short:
            return leave(row, STAGE, SPENT)
        captions, given = select_records(task.work, self._cut), answers.kept(task)
        if self._scorer is not None:
            self._keep_clip_scores(task, captions, given)
            given = answers.kept(task)
        if self._settings.has_budget:
            answers.count(task, self._outcomes(captions, given, now))
        more = open_requests(task, captions, given, settings=self._settings, prompts=self._prompts)
        if next(more, None) is None:
            return _conclude(row, task, captions, given, now.started)
        return send_again(row, STAGE) if self._has_room() else leave(row, STAGE, SPENT)

    def _keep_clip_scores(
        self,
        task: Task,
        captions: Mapping[str, Sequence[str]],
        given: Mapping[str, Sequence[Row]],
    ) -> None:
        """Have CLIP judge the texts that wait for it."""
        waiting: list[tuple[Row, dict[str, str]]] = []
        for own in given.values():
            found = judge(self._settings, self._prompts, captions, own)
            for answer in own:
                texts = {
                    form: text.text
                    for form, text in found.pending.items()
                    if text.answer is answer and "clip" in text.roles
                }
                if texts:
                    waiting.append((answer, texts))
        if not waiting:
            return
        scores = self._scorer(
            task.work,
            [
                (answer["record_id"], {OWN: captions[answer["record_id"]][0], **texts})
                for answer, texts in waiting
            ],
        )
        said = {
            "request": "", "finish_reason": None,
            "role": "clip", "model": self._scorer.name, "prompt": "", "seed": 0, "temperature": 0.0,
            "top_p": 1.0, "max_tokens": 0, "num_prompt_tokens": 0, "num_output_tokens": 0,
        }  # fmt: skip
        rows = [
            {**answer, **said, "forms": list(texts), "text": write_clip_scores(found)}
            for (answer, texts), found in zip(waiting, scores, strict=True)
        ]
        answers.keep(task, rows)

    def _has_room(self) -> bool:
        """Whether another round is worth starting the engines for."""
        if self._budget is None:
            return True
        import ray

        free: int = ray.get(self._budget.free.remote())
        return free >= self._settings.max_tokens

    def _outcomes(
        self,
        captions: Mapping[str, Sequence[str]],
        given: Mapping[str, Sequence[Row]],
        now: _Round,
    ) -> dict[str, tuple[int, int]]:
        """What the texts of a round's answers have come to, by arm: asked for, and taken."""
        counts: Counter[tuple[str, bool]] = Counter()
        for own in given.values():
            found = judge(self._settings, self._prompts, captions, own)
            results = [(failure.form, failure.answer, False) for failure in found.failures]
            results += [(form, answer, True) for form, (_, answer) in found.accepted.items()]
            for form, answer, is_taken in results:
                if key_of(answer) not in now.keys:
                    continue
                counts[form_arm(form, answer["attempt"]), is_taken] += 1
                if form == "style":
                    counts[style_arm(answer["style"]), is_taken] += 1
        return {
            arm: (counts[arm, True] + counts[arm, False], counts[arm, True])
            for arm in sorted({arm for arm, _ in counts})
        }

    def _answer(self, row: Row) -> Row:
        """A row of the table `answers`."""
        same = (
            "record_id", "kind", "role", "attempt", "forms", "style", "temperature", "seed",
            "request",
        )  # fmt: skip
        return {name: row[name] for name in same} | {
            "next_id": row["next_id"] or None,
            # `ray.data.llm` gives a refused request an empty text.
            "text": None if row[ERROR_COLUMN] else row["generated_text"] or "",
            "error": row[ERROR_COLUMN] or None,
            "finish_reason": row.get("finish_reason"),
            "model": self._model,
            "prompt": self._prompts.fingerprint_of(
                row["kind"] if row["role"] == "write" else row["role"]
            ),
            "top_p": self._settings.top_p,
            "max_tokens": self._settings.max_tokens,
            "num_prompt_tokens": row.get("num_input_tokens"),
            "num_output_tokens": row.get("num_generated_tokens"),
        }


@dataclass(slots=True, kw_only=True)
class _Round:
    """The answers of one part that have come in since it was last sent to the backend.

    Attributes:
        row: of the chain.
        task: what is to be done for the part.
        started: when, in seconds since the epoch.
        keys: the requests that have come back.
        failed: rows of `answers` without an answer, which are not kept yet.
        is_cut_short: whether the budget has kept a request from the backend.
        settled_at: how many requests have to be through before the part goes on; None before the
            end of the round.
    """

    row: dict[str, str]
    task: Task
    started: float
    keys: set[str] = field(default_factory=set)
    failed: list[Row] = field(default_factory=list)
    is_cut_short: bool = False
    settled_at: int | None = None


def _conclude(
    row: dict[str, str],
    task: Task,
    captions: Mapping[str, Sequence[str]],
    given: Mapping[str, Sequence[Row]],
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
