"""From a caption as the source gave it to clean text: source data is hostile.

What can be put right without guessing is, and named; the rest is a `TextError` with its reject
code. Nothing here judges whether a text is good: that is the scorers' work.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import ftfy
from ftfy import fixes

from pipeline.errors import RejectError
from pipeline.text_files import encoding_of, with_plain_line_ends

_MAX_UTF8_BYTES = 4
_UNESCAPE_ROUNDS = 3
"""Ours: alt texts that went through two templates are escaped twice; nothing needs more."""

# Whitespace controls stay; U+FFF9 to U+FFFB are interlinear marks.
_CONTROLS = re.compile("[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufff9-\ufffb]")
# Overrides, embeddings and isolates turn the order of what a reader sees (Boucher and Anderson,
# Trojan Source, arXiv 2111.00169, section III). The plain marks U+200E and U+200F are orthography.
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
# Joiners stay: emoji and Persian need them. Tags spell hidden ASCII, except in a flag's emoji.
_INVISIBLE = re.compile("[\u00ad\u200b\u2060-\u2064\ufeff]")
_TAGS = re.compile("(\U0001f3f4[\U000e0020-\U000e007f]+)|[\U000e0000-\U000e007f]")


class TextError(RejectError):
    """A text that will not be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """A text and what was put right in it."""

    text: str
    repairs: tuple[str, ...]


def clean(raw: str | bytes, *, max_characters: int) -> Cleaned:
    """The text without what no reader would see, in the order in which it was found.

    Raises:
        TextError: when it is too long, not UTF-8, or when nothing is left.
    """
    repairs: list[str] = []
    text = raw if isinstance(raw, str) else _decode(raw, max_characters, repairs)
    if len(text) > max_characters:
        message = f"{len(text)} characters, allowed are {max_characters}"
        raise TextError("ingest-caption-too-long", message)
    for name, repair in _REPAIRS:
        repaired = repair(text)
        if repaired != text:
            repairs.append(name)
            text = repaired
    text = text.strip()
    if not text:
        left = f" after {', '.join(repairs)}" if repairs else ""
        raise TextError("ingest-caption-empty", f"there is nothing to read{left}")
    return Cleaned(text=text, repairs=tuple(repairs))


def _decode(raw: bytes, max_characters: int, repairs: list[str]) -> str:
    if len(raw) > _MAX_UTF8_BYTES * max_characters:
        message = f"{len(raw)} bytes, allowed are {max_characters} characters"
        raise TextError("ingest-caption-too-long", message)
    encoding = encoding_of(raw)
    try:
        text = raw[encoding.mark_size :].decode(encoding.codec)
    except UnicodeDecodeError as error:
        # Any guess at the encoding would be wrong for some language and teach the model garbage.
        at = encoding.mark_size + error.start
        name = encoding.codec.removesuffix("-le").removesuffix("-be").upper()
        message = f"not {name}: byte {at} is {raw[at : at + 4]!r} ({error.reason})"
        raise TextError("ingest-caption-not-utf-8", message) from error
    repairs += encoding.repairs
    return with_plain_line_ends(text)


def _unescape(text: str) -> str:
    for _ in range(_UNESCAPE_ROUNDS):
        unescaped = fixes.unescape_html(text) if "&" in text else text
        if unescaped == text:
            return text
        text = unescaped
    return text


def _pair_surrogates(text: str) -> str:
    """Halves of a pair joined, and lone ones left out: they are no characters."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")


_REPAIRS: tuple[tuple[str, Callable[[str], str]], ...] = (
    # First, because an entity may stand for any of the others.
    ("html-entities", _unescape),
    ("lone-surrogates", _pair_surrogates),
    ("nul-bytes", lambda text: text.replace("\x00", "")),
    ("mojibake", ftfy.fix_encoding),
    ("bidi-controls", lambda text: _BIDI.sub("", text)),
    ("control-characters", lambda text: _CONTROLS.sub("", text)),
    ("invisible-characters", lambda text: _TAGS.sub(r"\1", _INVISIBLE.sub("", text))),
)
