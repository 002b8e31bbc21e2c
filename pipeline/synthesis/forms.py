"""What the LLM writes: the kinds of text, and the forms that each comes in.

A request asks for all forms of one kind, and its answer is a JSON object with a text for each. A
form is taken or refused by itself, and by itself it is written again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["caption", "style", "negative", "text", "interleave"]
"""`caption` says what the picture shows, `style` asks for the same in another visual style,
`negative` says what it does not show, `text` is about its subject, for the text stream, and
`interleave` leads from the record to a related one, for the mixed stream."""

KINDS: tuple[Kind, ...] = get_args(Kind)

OPENING = "OPENING"
"""Stands in a pattern for how a text in the style begins."""


def words_pattern(most: int, *, but: str = ".") -> str:
    """Regular expression of two to `most` words without some characters, nor quotes."""
    word = rf'[^"\\\n{but} ]+'
    return rf"{word}( {word}){{1,{most - 1}}}"


def _sentence(most: int) -> str:
    return rf"{words_pattern(most)}\."


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A form of text.

    Attributes:
        name: its key in an answer.
        kind: the kind that it is a form of.
        pattern: regular expression of the whole text, as the JSON schema gives it to the engine.
            It bounds the words, since a small model that may go on does: without, half of the
            answers with a dialogue used up their tokens. A schema with such a bound compiles in
            0.2 to 0.8 s, once for all records; one that counts characters took 2.5 s (xgrammar).
        max_characters: a longer text is refused. Ours: a small model that has not come to an end
            by then has lost its thread.
        min_words: a shorter text is refused.
        max_words: a longer text is refused. For a caption, what a CLIP text encoder (77 tokens)
            still reads in full.
    """

    name: str
    kind: Kind
    pattern: str
    max_characters: int
    min_words: int
    max_words: int


_TAG = r'[^"\\\n., ]+( [^"\\\n., ]+){0,3}'
_SAID = words_pattern(14, but=":.!?")
_TAGS = rf"^{_TAG}(, {_TAG}){{1,5}}$"
_THINGS = rf"^{_TAG}(, {_TAG}){{0,2}}$"

FORMS = {
    form.name: form
    for form in (
        Form(
            name="tags",
            kind="caption",
            pattern=_TAGS,
            max_characters=120,
            min_words=2,
            max_words=24,
        ),
        Form(
            name="sentence",
            kind="caption",
            pattern=rf"^{_sentence(30)}$",
            max_characters=160,
            min_words=2,
            max_words=40,
        ),
        Form(
            name="dense",
            kind="caption",
            pattern=rf"^{_sentence(16)}( {_sentence(16)}){{1,2}}$",
            max_characters=320,
            min_words=6,
            max_words=60,
        ),
        Form(
            name="style",
            kind="style",
            pattern=rf"^{OPENING} {_sentence(30)}$",
            max_characters=180,
            min_words=3,
            max_words=45,
        ),
        Form(
            name="absent",
            kind="negative",
            pattern=_THINGS,
            max_characters=80,
            min_words=1,
            max_words=20,
        ),
        Form(
            name="contrast",
            kind="negative",
            pattern=rf"^{_sentence(30)}$",
            max_characters=160,
            min_words=2,
            max_words=40,
        ),
        Form(
            name="question",
            kind="text",
            pattern=rf"^{words_pattern(14, but='.?')}\? {_sentence(24)}$",
            max_characters=240,
            min_words=6,
            max_words=60,
        ),
        Form(
            name="description",
            kind="text",
            pattern=rf"^{_sentence(24)}$",
            max_characters=240,
            min_words=5,
            max_words=60,
        ),
        Form(
            name="dialogue",
            kind="text",
            pattern=rf"^A: {_SAID}[.!?] B: {_SAID}[.!?]$",
            max_characters=240,
            min_words=6,
            max_words=60,
        ),
        Form(
            name="bridge",
            kind="interleave",
            pattern=rf"^{_sentence(30)}$",
            max_characters=200,
            min_words=4,
            max_words=40,
        ),
    )
}
"""Every form by its name, in the order of an answer's keys.

`tags`, `sentence` and `dense` are captions of three lengths. `absent` lists things that a picture
must not show, for guidance; `contrast` is a caption of which one thing, attribute, number or
relation is wrong: a hard negative.
"""


def forms_of(kind: str) -> tuple[str, ...]:
    """The names of a kind's forms, in their order."""
    return tuple(name for name, form in FORMS.items() if form.kind == kind)


def json_schema(forms: Sequence[str], opening: str) -> dict[str, object]:
    """The JSON schema of an answer with a text for each of some forms.

    Args:
        forms: names of forms of one kind.
        opening: how a text in the style begins.
    """
    escaped = re.sub(r"[.*+?^${}()|\[\]\\]", r"\\\g<0>", opening)
    return {
        "type": "object",
        "properties": {
            name: {"type": "string", "pattern": FORMS[name].pattern.replace(OPENING, escaped)}
            for name in forms
        },
        "required": list(forms),
        "additionalProperties": False,
    }
