"""What the answers about one record are worth, and what is still to be written: pure functions.

The loop asks with it whether to write again, and the stage `synthesize` makes variants of what the
loop has left: both see the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.schemas import original_texts, reject
from pipeline.engine.stage import Output, Row, Work
from pipeline.synthesis.backends.errors import classify
from pipeline.synthesis.critics import critique
from pipeline.synthesis.critics.candidate import Candidate, Verdict
from pipeline.synthesis.critics.clip import parse_clip_scores
from pipeline.synthesis.critics.judge import parse_judgement
from pipeline.synthesis.forms import FORMS, KINDS
from pipeline.synthesis.parsing import Rejected, parse
from pipeline.synthesis.prompts import Prompts, load_prompts, shorten
from pipeline.synthesis.settings import SynthesisSettings

STAGE = "synthesize"

Answer = Mapping[str, Any]
"""A row of the table `answers`."""

ROLES = ("write", "clip", "judge")
"""What an answer does: gives texts, or says of them how CLIP or the LLM finds them."""

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
class Pending:
    """A text that the critics without a model have taken.

    Attributes:
        text: the text.
        answer: the answer that it is from.
        roles: who has to say something of it still.
    """

    text: str
    answer: Answer
    roles: set[str]


@dataclass(slots=True, kw_only=True)
class Judgement:
    """What a record has after some answers.

    Attributes:
        accepted: for each form that is written, its text and the answer that it is from.
        pending: for each form, a text that a model is still to judge.
        failures: the texts that were not taken, in their order.
        open: for each form that is still to be written, its last failure. What an engine has
            refused is not open: it would refuse the same prompt again.
    """

    accepted: dict[str, tuple[str, Answer]] = field(default_factory=dict)
    pending: dict[str, Pending] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    open: dict[str, Failure] = field(default_factory=dict)

    def fail(self, failure: Failure) -> None:
        """Take in that a text is not good enough."""
        self.failures.append(failure)
        self.open[failure.form] = failure
        self.pending.pop(failure.form, None)

    def settle(self, form: str) -> None:
        """Accept a text that nobody is to judge any more."""
        if form in self.pending and not self.pending[form].roles:
            done = self.pending.pop(form)
            self.accepted[form] = (done.text, done.answer)


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
        answers: the record's rows of `answers`, in the order of their turns.
    """
    found = Judgement()
    for answer in answers:
        if answer["role"] != "write":
            _hear(settings, answer, found)
            continue
        taken = found.accepted.keys() | found.pending.keys()
        forms = [name for name in answer["forms"] if name not in taken]
        if answer["error"] is not None:
            reason, said = classify(answer["error"])
            why = Rejected(reason, shorten(said))
            for name in forms:
                found.fail(Failure(answer=answer, form=name, text="", why=why))
                del found.open[name]
            continue
        for name, result in _read(settings, prompts, captions, answer, forms, found):
            if isinstance(result, Failure):
                found.fail(result)
                continue
            found.open.pop(name, None)
            roles = set(further_roles(settings, name))
            found.pending[name] = Pending(text=result, answer=answer, roles=roles)
            found.settle(name)
    return found


def further_roles(settings: SynthesisSettings, form: str) -> Iterator[str]:
    """Which models have to judge a text of a form."""
    critics = settings.critics
    if critics is not None and critics.max_clip_loss is not None and FORMS[form].kind == "caption":
        yield "clip"
    if critics is not None and critics.judge:
        yield "judge"


def candidate_of(
    prompts: Prompts,
    captions: Mapping[str, Sequence[str]],
    answer: Answer,
    form: str,
    text: str,
    own: Mapping[str, str] = MappingProxyType({}),
) -> Candidate:
    """A text of an answer as the critics see it, beside the record's other texts by form."""
    style = answer["style"]
    return Candidate(
        form=form,
        text=text,
        captions=(*captions[answer["record_id"]], *captions.get(answer["next_id"] or "", ())),
        style=f"{style}: {prompts.styles[style]}" if form == "style" else "",
        others=tuple(other for taken, other in own.items() if _are_rivals(form, taken)),
    )


def _hear(settings: SynthesisSettings, answer: Answer, found: Judgement) -> None:
    """Take in what a model says of the texts of one attempt; nothing is said of no answer."""
    assert settings.critics is not None, "without critics no model is asked"  # noqa: S101
    for name in answer["forms"]:
        waiting = found.pending.get(name)
        if waiting is None or waiting.answer["attempt"] != answer["attempt"]:
            continue
        verdict = None
        if answer["error"] is None and answer["role"] == "judge":
            verdict = parse_judgement(answer["text"] or "", name, settings.critics)
        elif answer["error"] is None:
            verdict = parse_clip_scores(answer["text"], name, settings.critics)
        waiting.roles.discard(answer["role"])
        if verdict is not None and verdict.reason:
            why = Rejected(verdict.reason, verdict.detail)
            found.fail(
                Failure(
                    answer=waiting.answer, form=name, text=waiting.text, why=why,
                    score=verdict.score,
                )
            )  # fmt: skip
        else:
            found.settle(name)


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
    own |= {name: waiting.text for name, waiting in found.pending.items()}
    parsed = parse(
        answer["text"] or "",
        forms=forms,
        caption=captions[answer["record_id"]][0],
        opening=prompts.styles[answer["style"]],
        own=own,
        complete=answer["finish_reason"] != "length",
    )
    results: list[tuple[str, str | Failure]] = []
    for name in forms:
        if name in parsed.rejected:
            text = parsed.written.get(name, "")
            failure = Failure(answer=answer, form=name, text=text, why=parsed.rejected[name])
            results.append((name, failure))
            continue
        text = parsed.texts[name]
        candidate = candidate_of(prompts, captions, answer, name, text, own)
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
        those of a request without an answer (`backends/errors.py`) and those of the critics; one
        for each text that was not taken. The record stays.
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


def turn(answer: Answer) -> tuple[int, int, int]:
    """In which order a record's answers are judged: by attempt, captions first."""
    return answer["attempt"], ROLES.index(answer["role"]), KINDS.index(answer["kind"])


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
