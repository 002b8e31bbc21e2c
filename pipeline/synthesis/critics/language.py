"""Language: the record's, printable, without markup, and about the picture, not about the task."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from pipeline.language import identify
from pipeline.synthesis.critics.candidate import Candidate, Verdict, failed
from pipeline.synthesis.critics.settings import CriticSettings
from pipeline.synthesis.critics.words import MAX_CHARACTERS, script_of, straight

_MARKUP = re.compile(
    r"</?[a-z!|][^<>]{0,200}>"  # HTML, chat tokens
    r"|&(?:\w{2,8}|#\d{1,7});"
    r"|\*\*|__|```|~~|^\s*(?:#{1,6}|[-*>]|\d+\.)\s"  # Markdown
    r"|!?\[[^\]]{0,200}\]\([^)]{0,200}\)"
    r"|\[/?(?:INST|SYS)\]|https?://|\\[a-z]+\{|[{}]|\\[nrtu]",
    re.IGNORECASE | re.MULTILINE,
)
_TALK = re.compile(
    r"\bas an? (?:ai|artificial|large language|language model|assistant)\b"
    r"|\b(?:i|we)(?:'m| am| are)? (?:can ?not|can't|unable|sorry|apologi[sz]e|do not|don't|won't)\b"
    r"|\bi'm (?:sorry|unable|not able|just)\b|\bmy (?:training|apologies)\b"
    r"|^\W*(?:sure|certainly|of course|okay|absolutely)\b[!,.:]"
    r"|\bhere(?:'s| is| are) (?:the|a|an|your|my|some|one)\b.{0,40}"
    r"\b(?:captions?|descriptions?|texts?|rewrit\w+|sentences?|json|versions?)\b"
    r"|^\W*(?:caption|style|negative|text|answer|output|note|user|assistant|system)\s*:"
    r"|\b(?:the|this|your) (?:caption|prompt|instruction|user|request|json)s?\b"
    r"|\bignore (?:the|all|any|previous)\b|\blet me know\b|\bplease (?:provide|note|give)\b",
    re.IGNORECASE,
)
_JOINERS = {"\u200c", "\u200d"}  # Persian and emoji are written with them
_SAME_SCRIPT = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "HANGUL": "CJK", "BOPOMOFO": "CJK"}


def language(candidate: Candidate, settings: CriticSettings) -> Verdict:
    """Whether a text is written as its record is.

    The score is 0 for what cannot be printed, for markup and for talk about the task; else the
    share of letters in the record's scripts, or the probability that it is in the record's
    language, where that of another is certain.
    """
    text = candidate.text[:MAX_CHARACTERS]
    if not text.strip() or any(map(_is_unprintable, text)):
        return _fault(0.0, "synthesis-unprintable", "it has characters that cannot be printed")
    if found := _MARKUP.search(text):
        return _fault(0.0, "synthesis-markup", f'it has markup: "{found.group().strip()}"')
    stated = "\n".join(candidate.captions)[:MAX_CHARACTERS]
    found = _TALK.search(straight(text))
    if found and found.group().casefold() not in straight(stated).casefold():
        detail = f'it says "{found.group().strip()}", which is not about the picture'
        return _fault(0.0, "synthesis-off-task", detail)
    share = _share_in_scripts(text, stated)
    if share < settings.min_script_share:
        return _fault(share, "synthesis-wrong-language", "it is not in the script of the record")
    least = settings.min_language_certainty
    expected, certainty = identify(stated)
    if certainty < least:
        # What the corpus is written in says nothing about a record in another alphabet.
        expected = settings.language if "LATIN" in _scripts(stated) else ""
    written, certainty = identify(text)
    if expected and written != expected and certainty >= least:
        detail = f"it is in another language ({written}) than the record ({expected})"
        return _fault(1 - certainty, "synthesis-wrong-language", detail)
    return Verdict(critic="language", score=share)


def _fault(score: float, reason: str, detail: str) -> Verdict:
    return failed("language", score, reason=reason, detail=detail)


def _is_unprintable(letter: str) -> bool:
    if letter in _JOINERS or letter in "\n\t":
        return False
    return unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Co", "Cn"} or letter == "\ufffd"


def _share_in_scripts(text: str, stated: str) -> float:
    """The share of a text's letters whose script the record has; 1 where one has no letters."""
    known, used = _scripts(stated), _scripts(text)
    if not known or not used:
        return 1.0
    return sum(count for script, count in used.items() if script in known) / used.total()


def _scripts(text: str) -> Counter[str]:
    names = (script_of(letter) for letter in text)
    return Counter(_SAME_SCRIPT.get(name, name) for name in names if name)
