"""Lists of what may not be used: files with one entry a line, named in the recipe.

Blank lines and lines that begin with `#` say nothing. A list of a hundred thousand entries costs no
more a text than one of ten: words and domains are looked up, only patterns are tried one by one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filters.settings import RightsSettings
from pipeline.engine.fingerprint import fingerprint
from pipeline.errors import UserError
from pipeline.text_files import read_text

_SHA256 = re.compile(r"[0-9a-f]{64}")
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)*[^\W_][\w-]{0,62}")
_Entry = TypeVar("_Entry")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextList:
    """Words, phrases and patterns that no text may have.

    Attributes:
        phrases: entries by their words; upper and lower case are one.
        lengths: how many words the entries have.
        patterns: entries in slashes, as regular expressions.
    """

    phrases: Mapping[tuple[str, ...], str]
    lengths: Sequence[int]
    patterns: Sequence[re.Pattern[str]]

    def entry(self, text: str) -> str | None:
        """The first entry that a text has, or None."""
        words = _words(text) if self.phrases else ()
        for length in self.lengths:
            for phrase in zip(*(words[start:] for start in range(length)), strict=False):
                if phrase in self.phrases:
                    return self.phrases[phrase]
        return next((f"/{each.pattern}/" for each in self.patterns if each.search(text)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """Everything that the recipe's files say.

    Attributes:
        domains: in ASCII, as DNS has them; each stands for those below it, too.
        images: SHA-256 of images' bytes, or of their pixels.
        texts: what no text may have.
    """

    domains: frozenset[str]
    images: frozenset[str]
    texts: TextList

    def domain(self, host: str) -> str | None:
        """The entry that a host falls under, or None."""
        labels = _to_ascii(host.rstrip(".")).split(".")
        above = (".".join(labels[start:]) for start in range(len(labels)))
        return next((domain for domain in above if domain in self.domains), None)


def read_lists(settings: RightsSettings) -> Lists:
    """Read the files that the recipe names.

    Raises:
        UserError: when one cannot be read, naming the file, the line and what is allowed.
    """
    texts = _read(settings.blocked_texts, _text)
    phrases = {_words(entry): entry for entry in texts if isinstance(entry, str)}
    return Lists(
        domains=frozenset(_read(settings.blocked_domains, _domain)),
        images=frozenset(_read(settings.blocked_images, _image)),
        texts=TextList(
            phrases=phrases,
            lengths=sorted(set(map(len, phrases))),
            patterns=[entry for entry in texts if isinstance(entry, re.Pattern)],
        ),
    )


def lists_fingerprint(settings: RightsSettings) -> str:
    """A hash of what the files say, wherever they lie.

    Raises:
        UserError: as `read_lists`.
    """
    lists = read_lists(settings)
    return fingerprint(
        domains=sorted(lists.domains),
        images=sorted(lists.images),
        phrases=sorted(lists.texts.phrases.values()),
        patterns=[pattern.pattern for pattern in lists.texts.patterns],
    )


def _read(path: Path | None, parse: Callable[[str], _Entry]) -> list[_Entry]:
    if path is None:
        return []
    entries = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        try:
            entries.append(parse(entry))
        except ValueError as error:
            message = f"{path}:{number}: {error} (found {entry!r})"
            raise UserError(
                message, "One entry a line; lines with # in front are left out."
            ) from error
    return entries


def _domain(entry: str) -> str:
    domain = entry.casefold().removeprefix("*.").rstrip(".")
    if not _DOMAIN.fullmatch(domain):
        message = "an entry is a domain such as example.org, without a scheme or a path"
        raise ValueError(message)
    return _to_ascii(domain)


def _image(entry: str) -> str:
    if not _SHA256.fullmatch(entry.lower()):
        message = "an entry is the SHA-256 of an image, 64 hexadecimal digits"
        raise ValueError(message)
    return entry.lower()


def _text(entry: str) -> str | re.Pattern[str]:
    if len(entry) > 2 and entry.startswith("/") and entry.endswith("/"):
        try:
            return re.compile(entry[1:-1], re.IGNORECASE)
        except re.error as error:
            message = f"the pattern is no regular expression: {error}"
            raise ValueError(message) from error
    if not _words(entry):
        message = "an entry is a word, a phrase, or a /pattern/"
        raise ValueError(message)
    return entry


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def _to_ascii(host: str) -> str:
    """A host as DNS has it; as it came where that cannot be said."""
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return host
