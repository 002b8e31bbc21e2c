"""From the LLM's answer to texts, or why there are none: a pure function."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from pipeline.synthesis.extraction import find_object, without_thoughts
from pipeline.synthesis.forms import FORMS
from pipeline.synthesis.prompts import clean, shorten

_PLAIN = re.compile(r"[^\w]+")
_NOTHING = "the answer has no text in it"
_ONLY_REASONING = "all tokens went to reasoning, none to an answer: raise synthesis.max_tokens"
_FREE_OF_THE_RECORD = {"text", "interleave"}  # kinds that may well be the caption's words


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why an answer, or the text of one form in it, was not taken."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an answer gave, by form.

    Attributes:
        texts: the texts that were taken.
        rejected: why the others were not.
        written: the others, where there is a text at all.
    """

    texts: Mapping[str, str]
    rejected: Mapping[str, Rejected]
    written: Mapping[str, str]


def parse(
    text: str,
    *,
    forms: Sequence[str],
    caption: str,
    opening: str,
    own: Mapping[str, str] = MappingProxyType({}),
    complete: bool,
) -> Answer:
    """What the LLM's answer about one caption is worth.

    Args:
        text: the answer.
        forms: what was asked for.
        caption: the record's caption.
        opening: how a text in the style that was asked for begins.
        own: the record's texts that have been taken before, by form.
        complete: False when the answer ended because it had used up its tokens.
    """
    found = read_texts(text, forms, complete=complete)
    if isinstance(found, Rejected):
        return Answer(texts={}, rejected=dict.fromkeys(forms, found), written={})
    texts: dict[str, str] = {}
    rejected: dict[str, Rejected] = {}
    faulty: dict[str, str] = {}
    for name, written in found.items():
        # What the picture must not show may stand neither in the record nor in its new caption.
        known = f"{caption} {own.get('sentence', '')}"
        kept = _unnamed(written, known) if name == "absent" else written
        fault = _fault(name, written, kept, caption, opening)
        if fault is not None:
            rejected[name] = Rejected(fault, shorten(written or text))
            faulty[name] = written
        else:
            texts[name] = kept
    return Answer(texts=texts, rejected=rejected, written=faulty)


def read_texts(text: str, forms: Sequence[str], *, complete: bool) -> dict[str, str] | Rejected:
    """What an answer says for each form, empty where it says nothing; or why it is of no use.

    Args:
        text: the answer.
        forms: what was asked for.
        complete: False when the answer ended because it had used up its tokens.
    """
    said = find_object(text, forms)
    values = {name: (said or {}).get(name) for name in forms}
    written = {name: clean(each) if isinstance(each, str) else "" for name, each in values.items()}
    if any(written.values()):
        return written
    answer = without_thoughts(text)
    if not complete:
        return Rejected("synthesis-cut-off", shorten(text) if answer else _ONLY_REASONING)
    is_empty = said is not None or not answer
    reason = "synthesis-empty" if is_empty else "synthesis-malformed-json"
    return Rejected(reason, shorten(text.strip()) or _NOTHING)


def _fault(name: str, written: str, kept: str, caption: str, opening: str) -> str | None:
    form = FORMS[name]
    if not written:
        return "synthesis-empty"
    if len(written) > form.max_characters:
        return "synthesis-too-long"
    if form.kind == "style" and not written.startswith(opening):
        return "synthesis-wrong-style"
    if not kept:
        return "synthesis-repeats-record"
    if form.kind not in _FREE_OF_THE_RECORD and _words(kept) == _words(caption):
        return "synthesis-repeats-record"
    return None


def _unnamed(negative: str, caption: str) -> str:
    """The things of a list, each once, without those that the caption names in the same words."""
    known = set(_words(caption))
    kept: dict[tuple[str, ...], str] = {}
    for thing in negative.split(","):
        words = tuple(_words(thing))
        if words and not known.issuperset(words):
            kept.setdefault(words, thing.strip())
    return ", ".join(kept.values())


def _words(text: str) -> list[str]:
    """The words of a text in a form that compares: no articles, no case, no plural s."""
    words = _PLAIN.sub(" ", text.casefold()).split()
    return [word.removesuffix("s") for word in words if word not in {"a", "an", "the"}]
