"""The LLM as a judge: the prompt with its rubric, and what its answer says; pure functions.

One request judges the texts of one kind that an answer gave. They and the record reach the prompt
only as JSON strings, as in `prompts.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.synthesis.critics.candidate import Candidate, Verdict, judged
from pipeline.synthesis.critics.settings import CriticSettings
from pipeline.synthesis.extraction import find_object
from pipeline.synthesis.forms import words_pattern
from pipeline.synthesis.prompts import Message, clean, compact_json, shorten

MARKS = ("faithful", "natural", "useful")
BEST = 5
"""Marks go from 1 to this."""

REASON = "synthesis-judged-poor"


def judge_messages(template: str, candidates: Sequence[Candidate]) -> list[Message]:
    """The chat that asks for the marks of some texts of one kind about one record.

    Args:
        template: Jinja source of the user's message.
        candidates: the texts.
    """
    first = candidates[0]
    known: dict[str, Any] = {
        "record": [clean(caption) for caption in first.captions],
        "texts": {candidate.form: clean(candidate.text) for candidate in candidates},
    }
    if first.kind == "style":
        known["style"] = clean(first.style)
    marks = dict.fromkeys(MARKS, 1) | {"why": "..."}
    example = {candidate.form: marks for candidate in candidates}
    content = _compile(template).render(kind=first.kind, candidates=known, example=example)
    return [{"role": "user", "content": content.strip()}]


def judge_schema(forms: Sequence[str]) -> dict[str, object]:
    """The JSON schema of an answer: for each form three marks and a reason."""
    mark = {"type": "integer", "minimum": 1, "maximum": BEST}
    why = {"type": "string", "pattern": f"^{words_pattern(10, but='')}$"}
    one = {
        "type": "object",
        "properties": dict.fromkeys(MARKS, mark) | {"why": why},
        "required": [*MARKS, "why"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": dict.fromkeys(forms, one),
        "required": list(forms),
        "additionalProperties": False,
    }


def parse_judgement(answer: str, form: str, settings: CriticSettings) -> Verdict | None:
    """What an answer says of the text of a form; None where it is not what the schema asks for.

    The score is the worst mark, from 0 to 1: a text that is natural but not faithful is not half
    good.
    """
    found = (find_object(answer, [form]) or {}).get(form)
    if not isinstance(found, dict):
        return None
    marks = {name: found.get(name) for name in MARKS}
    if not all(
        type(mark) in {int, float} and mark in range(1, BEST + 1) for mark in marks.values()
    ):
        return None
    scores = {name: (int(mark or 0) - 1) / (BEST - 1) for name, mark in marks.items()}
    worst = min(scores, key=lambda name: scores[name])
    why = clean(found["why"]) if isinstance(found.get("why"), str) else ""
    return judged(
        "judge",
        scores[worst],
        threshold=settings.min_judgement,
        reason=REASON,
        detail=shorten(why) or f"it is not {worst}",
    )


@cache
def _compile(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    environment.filters["json"] = compact_json
    return environment.from_string(template)
