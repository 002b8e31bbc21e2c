"""What the answers to one record are worth, and what is still to be written: pure functions.

The loop asks with it whether to write again, and the stage `synthesize` makes variants of what the
loop has left: both see the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.schemas import original_texts, reject
from pipeline.engine.stage import Output, Row, Work
from pipeline.synthesis.critics import critique
from pipeline.synthesis.critics.candidate import Candidate, Kind, Verdict
from pipeline.synthesis.prompts import KINDS, Prompts, Rejected, load_prompts, parse, shorten
from pipeline.synthesis.settings import SynthesisSettings

STAGE = "synthesize"

Answer = Mapping[str, Any]
"""A row of the table `answers`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A text that was not taken.

    Attributes:
        answer: the answer that it is from.
        kind: what it should have been.
        text: the text; empty where the answer has none.
        why: the reason.
        score: the critic's, from 0 to 1; None where the form alone was wrong.
    """

    answer: Answer
    kind: str
    text: str
    why: Rejected
    score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a record has after some answers.

    Attributes:
        accepted: for each kind that is written, its text and the answer that it is from.
        failures: the texts that were not taken, in their order.
        open: for each kind that is still to be written, its last failure.
    """

    accepted: Mapping[str, tuple[str, Answer]]
    failures: Sequence[Failure]
    open: Mapping[str, Failure]


def judge(
    settings: SynthesisSettings,
    prompts: Prompts,
    captions: Sequence[str],
    answers: Sequence[Answer],
) -> Judgement:
    """Go through a record's answers in their order.

    Args:
        settings: how long an answer may be, and from where on the critics take a text.
        prompts: those that were asked with.
        captions: what the record states; its first caption is the one that was rewritten.
        answers: rows of `answers`, attempt by attempt.
    """
    accepted: dict[str, tuple[str, Answer]] = {}
    failures: list[Failure] = []
    still_open: dict[str, Failure] = {}
    for answer in answers:
        kinds = [kind for kind in answer["kinds"] if kind not in accepted]
        if answer["error"] is not None:
            why = Rejected("synthesis-engine-error", shorten(answer["error"]))
            failures += [Failure(answer=answer, kind=kind, text="", why=why) for kind in kinds]
            # The same prompt would be refused again.
            return Judgement(accepted=accepted, failures=failures, open={})
        found = parse(
            prompts,
            answer["text"],
            kinds=kinds,
            caption=captions[0],
            style=answer["style"],
            own={kind: text for kind, (text, _) in accepted.items()},
            complete=answer["num_output_tokens"] < settings.max_tokens,
        )
        failed = {
            kind: Failure(answer=answer, kind=kind, text=found.written.get(kind, ""), why=why)
            for kind, why in found.rejected.items()
        }
        for kind, text in found.texts.items():
            own = [other for taken, (other, _) in accepted.items() if taken != "negative"]
            verdict = _criticise(settings, prompts, captions, answer["style"], kind, text, own)
            if verdict is None:
                accepted[kind] = (text, answer)
            else:
                why = Rejected(verdict.reason, verdict.detail)
                failed[kind] = Failure(
                    answer=answer, kind=kind, text=text, why=why, score=verdict.score
                )
        failures += failed.values()
        still_open |= failed
    left = {kind: failure for kind, failure in still_open.items() if kind not in accepted}
    return Judgement(accepted=accepted, failures=failures, open=left)


def _criticise(
    settings: SynthesisSettings,
    prompts: Prompts,
    captions: Sequence[str],
    style: str,
    kind: str,
    text: str,
    own: Sequence[str],
) -> Verdict | None:
    """The first verdict against a text; None when the critics take it."""
    if settings.critics is None:
        return None
    candidate = Candidate(
        kind=cast("Kind", kind),
        text=text,
        captions=tuple(captions),
        style=f"{style}: {prompts.styles[style]}" if kind == "style" else "",
        others=tuple(own) if kind != "negative" else (),
    )
    verdicts = critique(candidate, settings.critics)
    return next((verdict for verdict in verdicts if verdict.reason), None)


class JudgeWorker:
    """Variants of the answers.

    Reads: `records`, `answers`.
    Writes: `variants`, one row for each text that was taken.
    Rejects: `synthesis-malformed-json`, `synthesis-cut-off`, `synthesis-empty`,
        `synthesis-too-long`, `synthesis-wrong-style`, `synthesis-repeats-record`,
        `synthesis-engine-error` and those of the critics; one for each text that was not taken. The
        record stays.
    Source: none.
    """

    def __init__(self, settings: SynthesisSettings, models: Mapping[str, Path]) -> None:
        self._settings = settings
        self._prompts = load_prompts(settings)
        del models

    def __call__(self, work: Work) -> Output:
        """Judge one part, record by record."""
        by_record: dict[str, list[Answer]] = {}
        for answer in work.read("answers").to_pylist():
            by_record.setdefault(answer["record_id"], []).append(answer)
        variants: list[Row] = []
        rejects: list[Row] = []
        records = work.read("records", ["record_id", "caption", "more_captions"]).to_pylist()
        for record in work.each(records):
            answers = by_record.get(record["record_id"])
            if answers is None:
                continue
            found = judge(self._settings, self._prompts, captions_of(record), answers)
            kinds = [kind for kind in KINDS if kind in found.accepted]
            variants += [_variant(kind, *found.accepted[kind]) for kind in kinds]
            rejects += [_reject(failure) for failure in found.failures]
        return Output(rows=variants, rejects=rejects)


def captions_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What a record states: all its captions, the one that is rewritten first."""
    return tuple(text for _, text in original_texts(record))


def _variant(kind: str, text: str, answer: Answer) -> Row:
    record_id = answer["record_id"]
    return {
        "record_id": record_id,
        "variant_id": fingerprint(record_id=record_id, kind=kind, text=text),
        "kind": kind,
        "text": text,
        "style": answer["style"] if kind == "style" else None,
        **{name: answer[name] for name in ("attempt", "model", "prompt", "seed")},
        "num_prompt_tokens": answer["num_prompt_tokens"],
        "num_output_tokens": answer["num_output_tokens"],
    }


def _reject(failure: Failure) -> Row:
    """The record stays, with its own caption: the reject names the text that was asked for."""
    answer = failure.answer
    named = {name: answer[name] for name in ("record_id", "prompt", "attempt")}
    why = reject(
        record_id=answer["record_id"],
        variant_id=fingerprint(kind=failure.kind, **named),
        stage=STAGE,
        reason=failure.why.reason,
        detail=_detail(failure),
        score=failure.score,
    )
    return why | {"kind": failure.kind, "attempt": answer["attempt"]}


def _detail(failure: Failure) -> str:
    """The text, and what a critic has against it."""
    if failure.score is None:
        return failure.why.detail
    return shorten(f"{failure.text} [{failure.why.detail}]")
