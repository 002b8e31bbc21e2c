"""What the answers about one record are worth, and what is still to be written: pure functions.

The loop asks with it whether to write again, and the stage `synthesize` makes variants of what the
loop has left: both see the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.schemas import original_texts, reject
from pipeline.engine.stage import Output, Row, Work
from pipeline.synthesis.critics import critique
from pipeline.synthesis.critics.candidate import Candidate, Verdict
from pipeline.synthesis.forms import FORMS, KINDS
from pipeline.synthesis.parsing import Rejected, parse
from pipeline.synthesis.prompts import Prompts, load_prompts, shorten
from pipeline.synthesis.settings import SynthesisSettings

STAGE = "synthesize"

Answer = Mapping[str, Any]
"""A row of the table `answers`."""

_BESIDE_A_PICTURE = {"caption", "style"}  # kinds whose texts must differ from one another


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A text that was not taken.

    Attributes:
        answer: the answer that it is from.
        form: what it should have been.
        text: the text; empty where the answer has none.
        why: the reason.
        score: the critic's, from 0 to 1; None where the form alone was wrong.
    """

    answer: Answer
    form: str
    text: str
    why: Rejected
    score: float | None = None


@dataclass(slots=True, kw_only=True)
class Judgement:
    """What a record has after some answers.

    Attributes:
        accepted: for each form that is written, its text and the answer that it is from.
        failures: the texts that were not taken, in their order.
        open: for each form that is still to be written, its last failure. What an engine has
            refused is not open: it would refuse the same prompt again.
    """

    accepted: dict[str, tuple[str, Answer]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    open: dict[str, Failure] = field(default_factory=dict)


def judge(
    settings: SynthesisSettings,
    prompts: Prompts,
    captions: Mapping[str, Sequence[str]],
    answers: Sequence[Answer],
) -> Judgement:
    """Go through a record's answers in their order.

    Args:
        settings: how long an answer may be, and from where on the critics take a text.
        prompts: those that were asked with.
        captions: what the records of the part state, by id, the caption that is rewritten first.
        answers: the record's rows of `answers`, attempt by attempt.
    """
    found = Judgement()
    for answer in answers:
        forms = [name for name in answer["forms"] if name not in found.accepted]
        if answer["error"] is not None:
            why = Rejected("synthesis-engine-error", shorten(answer["error"]))
            for name in forms:
                found.failures.append(Failure(answer=answer, form=name, text="", why=why))
                found.open.pop(name, None)
            continue
        for name, result in _read(settings, prompts, captions, answer, forms, found):
            if isinstance(result, str):
                found.accepted[name] = (result, answer)
                found.open.pop(name, None)
            else:
                found.failures.append(result)
                found.open[name] = result
    return found


def _read(
    settings: SynthesisSettings,
    prompts: Prompts,
    captions: Mapping[str, Sequence[str]],
    answer: Answer,
    forms: Sequence[str],
    found: Judgement,
) -> list[tuple[str, str | Failure]]:
    """For each form of one answer, its text, or why it was not taken."""
    own = {name: text for name, (text, _) in found.accepted.items()}
    stated = tuple(captions[answer["record_id"]])
    opening = prompts.styles[answer["style"]]
    parsed = parse(
        answer["text"],
        forms=forms,
        caption=stated[0],
        opening=opening,
        own=own,
        complete=answer["num_output_tokens"] < settings.max_tokens,
    )
    results: list[tuple[str, str | Failure]] = []
    for name in forms:
        if name in parsed.rejected:
            text = parsed.written.get(name, "")
            failure = Failure(answer=answer, form=name, text=text, why=parsed.rejected[name])
            results.append((name, failure))
            continue
        text = parsed.texts[name]
        candidate = Candidate(
            form=name,
            text=text,
            captions=(*stated, *captions.get(answer["next_id"] or "", ())),
            style=f"{answer['style']}: {opening}" if name == "style" else "",
            others=tuple(other for taken, other in own.items() if _are_rivals(name, taken)),
        )
        verdict = _criticise(candidate, settings)
        if verdict is None:
            own[name] = text
            results.append((name, text))
        else:
            why = Rejected(verdict.reason, verdict.detail)
            failure = Failure(answer=answer, form=name, text=text, why=why, score=verdict.score)
            results.append((name, failure))
    return results


def _criticise(candidate: Candidate, settings: SynthesisSettings) -> Verdict | None:
    """The first verdict against a text; None when the critics take it."""
    if settings.critics is None:
        return None
    verdicts = critique(candidate, settings.critics)
    return next((verdict for verdict in verdicts if verdict.reason), None)


def _are_rivals(one: str, other: str) -> bool:
    """Whether the texts of two forms must differ from each other."""
    kinds = {FORMS[one].kind, FORMS[other].kind}
    if "negative" in kinds:
        return False
    return len(kinds) == 1 or kinds == _BESIDE_A_PICTURE


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
        captions = {record["record_id"]: captions_of(record) for record in records}
        for record in work.each(records):
            answers = by_record.get(record["record_id"])
            if answers is None:
                continue
            found = judge(self._settings, self._prompts, captions, sorted(answers, key=turn))
            taken = [name for name in FORMS if name in found.accepted]
            variants += [_variant(name, *found.accepted[name]) for name in taken]
            rejects += [_reject(failure) for failure in found.failures]
        return Output(rows=variants, rejects=rejects)


def turn(answer: Answer) -> tuple[int, int]:
    """In which order a record's answers are judged: by attempt, captions first."""
    return answer["attempt"], KINDS.index(answer["kind"])


def captions_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What a record states: all its captions, the one that is rewritten first."""
    return tuple(text for _, text in original_texts(record))


def _variant(form: str, text: str, answer: Answer) -> Row:
    record_id = answer["record_id"]
    same = (
        "record_id", "kind", "next_id", "attempt", "model", "prompt", "temperature", "top_p",
        "max_tokens", "seed", "num_prompt_tokens", "num_output_tokens",
    )  # fmt: skip
    return {name: answer[name] for name in same} | {
        "variant_id": fingerprint(record_id=record_id, form=form, text=text),
        "form": form,
        "text": text,
        "style": answer["style"] if form == "style" else None,
    }


def _reject(failure: Failure) -> Row:
    """The record stays, with its own caption: the reject names the text that was asked for."""
    answer = failure.answer
    named = {name: answer[name] for name in ("record_id", "prompt", "attempt")}
    why = reject(
        record_id=answer["record_id"],
        variant_id=fingerprint(form=failure.form, **named),
        stage=STAGE,
        reason=failure.why.reason,
        detail=_detail(failure),
        score=failure.score,
    )
    return why | {
        "kind": answer["kind"], "form": failure.form, "attempt": answer["attempt"],
    }  # fmt: skip


def _detail(failure: Failure) -> str:
    """The text, and what a critic has against it."""
    if failure.score is None:
        return failure.why.detail
    return shorten(f"{failure.text} [{failure.why.detail}]")
