"""Scores of a text by itself: its language, its length, and what is wrong with it.

The checks look for what makes web captions useless or harmful for training: nothing, file names,
what a page's template left behind, addresses, what names a person's way home, one word over and
over (Radenovic et al., arXiv 2301.02280, and DataComp's basic filter, arXiv 2304.14108,
appendix F, use the same kinds). A hostile text costs no more than a long one: each pattern takes
time in proportion to the text.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from filters.settings import ScoreSettings
from pipeline.language import identify

_MAX_LANGUAGE_CHARACTERS = 4000
"""What the language is read from: longer texts take longer and are no surer."""

_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['\u2019][^\W{_UNSPACED}]+)*")
"""A word, or a character of Chinese or Japanese, which have no spaces."""

_MAX_WORD_CHARACTERS = 100
"""Ours: above what any language puts into one word, below what a hash or a data URL takes."""

_FILE_NAME = re.compile(
    r"(?:img|dsc[nf]?|dcim|image|photo|pic|picture|scan|screen\s?shot|untitled|unnamed)[\s\d_().-]*"
    r"|(?:screen\s?shot|whatsapp image)\s\d[\s\w.:-]{0,60}"
    r"|[\w\s.,()+-]{1,255}\.(?:jpe?g|png|gif|webp|bmp|tiff?|heic|svg|avif)",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"\W*(?:null|none|nan|undefined|n/a|default|placeholder|thumbnail|banner|avatar|advertisement"
    r"|loading|(?:no|missing) (?:image|photo|picture|title|caption|description))\W*",
    re.IGNORECASE,
)
_BOILERPLATE = re.compile(
    r"\b(?:hash|array|code|scalar|ref)\(0x[0-9a-f]+\)|\[object \w+\]|\bobject at 0x[0-9a-f]"
    r"|\{\{[^{}]{0,80}\}\}|\$\{\w{1,80}\}"
    r"|\bclick (?:here|(?:on )?(?:the |this )?(?:image|picture|photo|thumbnail)\b"
    r"|(?:to|for) (?:a )?(?:larger|enlarge|zoom|view|see|open|expand|play|full))"
    r"|\b(?:view|see|open) (?:larger|full[- ]size)|\blorem ipsum\b|\ball rights reserved\b"
    r"|\b(?:image|photo|picture|description) (?:is )?(?:not (?:available|found)|unavailable"
    r"|coming soon)\b|\bno (?:image|photo|picture|description) available\b"
    r"|\b(?:image|photo) may contain\b",
    re.IGNORECASE,
)
_URL = re.compile(
    r"\b(?:https?|ftp)://[^\s/]|\bwww\.\w|(?<![\w.-])[\w-]{2,63}(?:\.[\w-]{2,63}){0,3}"
    r"\.[a-z]{2,24}/\w",
    re.IGNORECASE,
)
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,4}\.[^\W\d_]{2,24}")
_PHONE = re.compile(
    r"(?<![\w.+-])(?:"
    r"\+\d{1,3}[\s./-]?\(?\d(?:[\s./()-]{0,2}\d){6,12}"  # +44 20 7946 0958
    r"|\(?\d{3}\)?[\s.-]\d{3}[\s.-]\d{4}"  # (555) 010-0199
    r"|\(?0\d{2,4}\)?[\s/-]\d{3,4}[\s/-]?\d{3,5}"  # 030 123456
    r"|(?:tel|phone|mobile|call|fax|whatsapp)\W{0,3}\d(?:[\s./()-]{0,2}\d){5,13}"
    r")(?![\w-])",
    re.IGNORECASE,
)
"""Telephone numbers as people write them, not any run of digits: no dates, sizes or ISBNs."""


class TextScores(NamedTuple):
    """The columns of the scores table that a text alone decides."""

    language: str | None
    """The likeliest language, ISO 639-1; None for a text without letters."""
    language_score: float | None
    """Its probability, which is low for a few words."""
    num_words: int
    """Words; each character of Chinese and Japanese is one."""
    repetition: float
    """Largest share of the words that one word takes, or two or three in a row that come three
    times; 0 for texts of up to three words."""
    num_urls: int
    """Addresses of pages."""
    num_personal: int
    """E-mail addresses and telephone numbers."""
    caption_quality: float
    """Share of the checks that passed, 0 to 1."""
    caption_fault: str | None
    """Name of the first check that failed."""


def text_scores(text: str, settings: ScoreSettings) -> TextScores:
    """Scores of one text."""
    bare = text.strip()
    words = _WORD.findall(bare)
    language, language_score = _language(bare)
    repetition = _repetition([word.casefold() for word in words])
    urls, emails, phones = (len(each.findall(bare)) for each in (_URL, _EMAIL, _PHONE))
    failed = {
        "empty": not bare,
        "too-short": len(bare) < settings.min_caption_characters,
        "too-long": len(words) > settings.max_caption_words,
        "no-words": re.search(rf"[{_UNSPACED}]|[^\W\d_]{{2,}}|\d", bare) is None,
        "no-spaces": any(len(word) > _MAX_WORD_CHARACTERS for word in words),
        "file-name": _FILE_NAME.fullmatch(bare) is not None,
        "boilerplate": bool(_PLACEHOLDER.fullmatch(bare) or _BOILERPLATE.search(bare)),
        "url": urls > 0,
        "e-mail": emails > 0,
        "phone": phones > 0,
        "repetition": repetition > settings.max_repeated_share,
    }
    return TextScores(
        language=language,
        language_score=language_score,
        num_words=len(words),
        repetition=repetition,
        num_urls=urls,
        num_personal=emails + phones,
        caption_quality=1 - sum(failed.values()) / len(failed),
        caption_fault=next((name for name, is_so in failed.items() if is_so), None),
    )


def _language(text: str) -> tuple[str, float] | tuple[None, None]:
    if not any(map(str.isalpha, text)):
        return None, None
    return identify(text[:_MAX_LANGUAGE_CHARACTERS])


def _repetition(words: list[str]) -> float:
    """As Rae et al. count the top n-grams, arXiv 2112.11446, table A1, but in words."""
    if len(words) < 4:
        return 0.0
    most = max(Counter(words).values())
    for length in (2, 3):
        grams = Counter(zip(*(words[start:] for start in range(length)), strict=False))
        count = max(grams.values())
        if count >= 3:
            most = max(most, length * count)
    return min(1.0, most / len(words))
