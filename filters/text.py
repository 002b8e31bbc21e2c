"""Caption quality: the share of plain checks that a text passes, and the first that it fails.

The checks look for what makes web captions useless for training: nothing, file names, code and
addresses in place of words, one word over and over (Radenovic et al., arXiv 2301.02280, and
DataComp's basic filter, arXiv 2304.14108, appendix F, use the same kinds).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from filters.settings import ScoreSettings

_FILE_NAME = re.compile(
    r"^\s*((img|dsc|dscn|dcim|image|photo|screenshot|untitled|unnamed)[\s_-]*\d*"
    r"|[\w-]+\.(jpe?g|png|gif|webp|bmp|tiff?))\s*$",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"https?://|www\.|\S+@\S+\.\w{2,}")


class CaptionQuality(NamedTuple):
    """The text columns of the scores table."""

    quality: float
    """Share of the checks that passed, 0 to 1."""
    fault: str | None
    """Name of the first check that failed."""


def caption_quality(text: str, settings: ScoreSettings) -> CaptionQuality:
    """Check one text."""
    checks: dict[str, Callable[[str], bool]] = {
        "empty": lambda text: bool(text.strip()),
        "too-short": lambda text: len(text.strip()) >= settings.min_caption_characters,
        "too-long": lambda text: len(text.split()) <= settings.max_caption_words,
        "no-words": lambda text: re.search(r"[^\W\d_]{2,}|\d", text) is not None,
        "file-name": lambda text: not _FILE_NAME.match(text),
        "address": lambda text: not _ADDRESS.search(text),
        "repetition": lambda text: _repeated_share(text) <= settings.max_repeated_share,
    }
    faults = [name for name, passes in checks.items() if not passes(text)]
    return CaptionQuality(
        quality=1 - len(faults) / len(checks), fault=faults[0] if faults else None
    )


def _repeated_share(text: str) -> float:
    """The share of the words that the commonest one takes; 0 for texts of up to three words."""
    words = re.findall(r"\w+", text.lower())
    if len(words) < 4:
        return 0.0
    ((_, count),) = Counter(words).most_common(1)
    return count / len(words)
