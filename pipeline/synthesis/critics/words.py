"""Words of a text in a form that compares, and the lists of words that the critics share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import snowballstemmer
import yaml

MAX_CHARACTERS = 4000
"""What a critic reads of a text: a hostile one must not cost more than a long one."""

_TOKEN = re.compile(r"\d+|[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_SENTENCE = re.compile(r"[.!?:]\s*[\"'\u2018-\u201d)]*\s*$|^\W*$")
_DERIVED = re.compile(r"(?<=\w{3})(?:ese?|es|ers?|ors?|ist|ian|ish|ful|ic|al|an|en|n|y|i)$")

_SCRIPTS_WITHOUT_SPACES = {
    "CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN",
}  # fmt: skip
_ALPHABETS = {"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A word of a text.

    Attributes:
        text: as it stands there.
        plain: without case, accents and a possessive s.
        stem: what its forms have in common.
        opens: whether it is the first of a sentence.
    """

    text: str
    plain: str
    stem: str
    opens: bool

    @property
    def is_number(self) -> bool:
        """Whether it is written in digits."""
        return self.plain[:1].isdigit()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """The lists of `words.yaml`, by plain word or, where forms are the same, by stem."""

    colours: Mapping[str, str]
    shades: Mapping[str, str]
    numbers: Mapping[str, int]
    paired: frozenset[str]
    irregular: Mapping[str, str]
    implied: Mapping[str, frozenset[str]]
    people: frozenset[str]
    relations: frozenset[str]
    opposites: Mapping[str, str]
    negations: frozenset[str]
    functions: frozenset[str]
    depictions: frozenset[str]
    measures: frozenset[str]
    general: frozenset[str]


@lru_cache(maxsize=512)
def split_words(text: str) -> tuple[Word, ...]:
    """The words of a text, of alphabets and digits; parts of a hyphenated word are words.

    Scripts without spaces, and those whose letters are put together from marks, are left out.
    """
    text = _THOUSANDS.sub("", text[:MAX_CHARACTERS])
    found = []
    for match in _TOKEN.finditer(text):
        plain = fold(match.group())
        if not plain or not (plain[0].isdigit() or script_of(plain[0]) in _ALPHABETS):
            continue
        opens = bool(_SENTENCE.search(text[max(0, match.start() - 8) : match.start()]))
        found.append(Word(text=match.group(), plain=plain, stem=stem(plain), opens=opens))
    return tuple(found)


def fold(text: str) -> str:
    """A word without case, accents and a possessive s."""
    decomposed = unicodedata.normalize("NFKD", straight(text).casefold())
    plain = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return re.sub(r"'s?$", "", unicodedata.normalize("NFC", plain))


def straight(text: str) -> str:
    """A text with typewriter's apostrophes."""
    return text.replace("\u2019", "'")


@lru_cache(maxsize=8192)
def stem(plain: str) -> str:
    """What the forms of an English word have in common; other words come back as they are."""
    plain = lists().irregular.get(plain, plain)
    return str(_stemmer().stemWord(plain))


@lru_cache(maxsize=8192)
def roots(plain: str) -> frozenset[str]:
    """The stem of a word, and it without what derives a word from another.

    Singer and sing, Japanese and Japan, runner and run have one in common.
    """
    shorter = {_DERIVED.sub("", word) for word in (plain, stem(plain))}
    single = {word[:-1] for word in shorter if len(word) > 3 and word[-1] == word[-2]}
    return frozenset({stem(plain)} | shorter | single)


@lru_cache(maxsize=4096)
def script_of(letter: str) -> str:
    """The script of a letter, as the first word of its Unicode name; empty for anything else."""
    return unicodedata.name(letter, "").partition(" ")[0] if letter.isalpha() else ""


def has_spaces(script: str) -> bool:
    """Whether a script puts spaces between its words."""
    return script not in _SCRIPTS_WITHOUT_SPACES


@cache
def lists() -> Lists:
    """The packaged lists."""
    content = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
    irregular = {str(plural): str(one) for plural, one in content["irregular"].items()}
    stemmer = _stemmer()

    def stems(words: list[str]) -> frozenset[str]:
        return frozenset(stemmer.stemWord(irregular.get(word, word)) for word in words)

    implied: dict[str, frozenset[str]] = {}
    for group in map(stems, content["synonyms"]):
        for each in group:
            implied[each] = implied.get(each, frozenset()) | group
    for word, means in content["implied"].items():
        (each,) = stems([word])
        # No further than said: a boy is male, and a man is, but a boy is no man.
        implied[each] = implied.get(each, frozenset()) | stems(means)
    return Lists(
        colours={word: group[0] for group in content["colours"] for word in group},
        shades={word: group[0] for group in content["shades"] for word in group},
        numbers={word: int(key) for key, group in content["numbers"].items() for word in group},
        paired=frozenset(content["paired"]),
        irregular=irregular,
        implied=implied,
        people=stems(content["people"]),
        relations=frozenset(content["relations"]),
        opposites=dict(content["opposites"]) | {two: one for one, two in content["opposites"]},
        negations=frozenset(map(str, content["negations"])),
        functions=frozenset(map(str, content["functions"])),
        depictions=frozenset(content["depictions"]),
        measures=stems(content["measures"]),
        general=stems(content["general"]),
    )


@cache
def _stemmer() -> snowballstemmer.stemmer:
    return snowballstemmer.stemmer("english")
