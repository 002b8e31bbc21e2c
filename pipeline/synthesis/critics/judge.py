"""The LLM as a judge: the prompt with its rubric, and what its answer says; pure functions.

The text and the record reach the prompt only as JSON strings, as in `prompts.py`.
"""

from __future__ import annotations

import json
from functools import cache

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.synthesis.critics.candidate import Candidate, Verdict, judged
from pipeline.synthesis.critics.settings import CriticSettings
from pipeline.synthesis.prompts import PACKAGED, Message, clean, compact_json, shorten

TEMPLATE = "judge.jinja2"

MARKS = ("faithful", "natural", "useful")
BEST = 5
"""Marks go from 1 to this."""

REASON = "synthesis-judged-poor"


def judge_messages(candidate: Candidate) -> list[Message]:
    """The chat that asks for the marks of one text."""
    known = {
        "record": [clean(caption) for caption in candidate.captions],
        "text": clean(candidate.text),
    }
    if candidate.kind == "style":
        known["style"] = clean(candidate.style)
    content = _template().render(kind=candidate.kind, candidate=known)
    return [{"role": "user", "content": content.strip()}]


def judge_schema() -> dict[str, object]:
    """The JSON schema of an answer: three marks and a reason."""
    mark = {"type": "integer", "minimum": 1, "maximum": BEST}
    return {
        "type": "object",
        "properties": dict.fromkeys(MARKS, mark) | {"why": {"type": "string"}},
        "required": [*MARKS, "why"],
        "additionalProperties": False,
    }


def parse_judgement(answer: str, settings: CriticSettings) -> Verdict | None:
    """What an answer says of the text; None where it is not what the schema asks for.

    The score is the worst mark, from 0 to 1: a text that is natural but not faithful is not half
    good.
    """
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    marks = {name: found.get(name) for name in MARKS}
    if not all(type(mark) is int and 1 <= mark <= BEST for mark in marks.values()):
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
def _template() -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    environment.filters["json"] = compact_json
    return environment.from_string((PACKAGED / TEMPLATE).read_text(encoding="utf-8"))
