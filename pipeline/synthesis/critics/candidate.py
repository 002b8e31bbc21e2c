"""What a critic gets to see, and what it says."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.synthesis.forms import FORMS, Kind

MAX_DETAIL = 300
"""Characters of a verdict's detail: it may quote a text of any length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A text that the LLM wrote for a record.

    Attributes:
        form: what it was asked to be, a name of `FORMS`.
        text: the text.
        captions: what the record states: every caption that its source gave; for a text that leads
            to another record, that one's too.
        style: for the kind `style`, the words that the style brings with it, such as its name and
            how a text in it begins; else empty.
        others: the texts that the record has already.
    """

    form: str
    text: str
    captions: tuple[str, ...]
    style: str = ""
    others: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """The kind that its form is one of."""
        return FORMS[self.form].kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one critic says of a text.

    Attributes:
        critic: its name.
        score: 0 to 1; 1 is fine.
        reason: the reject's code; empty where the text passes.
        detail: what is wrong, in words that a prompt for a rewrite can carry; empty where the text
            passes.
    """

    critic: str
    score: float
    reason: str = ""
    detail: str = ""


def judged(critic: str, score: float, *, threshold: float, reason: str, detail: str) -> Verdict:
    """The verdict of a score: below the threshold the reason stands."""
    if score >= threshold:
        return Verdict(critic=critic, score=score)
    return failed(critic, score, reason=reason, detail=detail)


def failed(critic: str, score: float, *, reason: str, detail: str) -> Verdict:
    """The verdict against a text, its detail cut to what a prompt can carry."""
    cut = detail if len(detail) <= MAX_DETAIL else f"{detail[: MAX_DETAIL - 1]}…"
    return Verdict(critic=critic, score=score, reason=reason, detail=cut)
