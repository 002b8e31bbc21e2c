"""What a text says that a record does not: colours, numbers, names, things, places.

Every such claim comes with the chance that it is made up, were it all that one knew of the text.
The chances are ours: a colour, a number or a name is hardly ever a way of saying something else; a
thing may be a synonym that the lists do not know; a doing or a quality often is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.synthesis.critics.words import Word, lists, roots, split_words

CHANCES = {
    "colour": 0.9,
    "name": 0.9,
    "number": 0.85,
    "shade": 0.8,
    "thing": 0.55,
    "relation": 0.7,
    "negation": 0.6,
    "unasked-shade": 0.55,  # the record says nothing of light and dark
    "quality": 0.5,
    "plural": 0.3,
    "general": 0.2,
    "manner": 0.2,
}

REPLACED = 0.35
"""What is added to the chance of a thing that stands in place of all that the record states, rather
than beside it; in proportion to the share of the record that the text does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Something that a text says and the record does not.

    Attributes:
        kind: a key of `CHANCES`.
        words: the words that say it.
        chance: that it is made up, 0 to 1.
    """

    kind: str
    words: str
    chance: float


class Stated:
    """What the captions of a record state, in a form that answers quickly."""

    def __init__(self, captions: Sequence[str], allowed: str = "") -> None:
        self.sentences = [split_words(caption) for caption in captions]
        words = [word for sentence in self.sentences for word in sentence]
        extra = split_words(allowed)
        known = lists()
        self.words = [word for word in words if is_content(word)]
        self._plain = {word.plain for word in (*words, *extra)}
        self._stems = {word.stem for word in (*words, *extra)}
        self._roots = {root for word in (*words, *extra) for root in roots(word.plain)}
        self._implied = {one for stem in self._stems for one in known.implied.get(stem, ())}
        self._joined = {
            one.plain + other.plain
            for sentence in (*self.sentences, extra)
            for one, other in pairwise(sentence)
        }
        self._colours = _values(self._plain, known.colours)
        self._shades = _values(self._plain, known.shades)
        self._numbers = {number for word in (*words, *extra) if (number := _number(word)) != ""}
        for sentence in self.sentences:
            people = [word.stem for word in sentence if word.stem in known.people]
            counts = {len(people), *Counter(people).values()}
            self._numbers |= {str(count) for count in counts if count > 1}
        if self._plain & known.paired:
            self._numbers.add("2")

    def has(self, word: Word) -> bool:
        """Whether the captions say this word, a form of it, or one that means it."""
        if word.plain in self._plain or word.stem in self._stems or word.stem in self._implied:
            return True
        if word.plain in self._joined:
            return True
        if len(word.stem) < 3 or word.is_number:
            return False
        # A sunflower is a flower, and what is a firefighter is a fighter.
        return not self._roots.isdisjoint(roots(word.plain)) or (
            len(word.plain) > 3 and any(each.endswith(word.plain) for each in self._plain)
        )

    def missing(self, text: str) -> list[str]:
        """The words of the captions that a text says in no way, in their order."""
        said = Stated([text])
        return [word.text for word in self.words if not said.has(word)]

    def claims(self, text: str) -> Iterator[Claim]:
        """What a text says beyond the captions, in the order of its words."""
        sentence = split_words(text)
        if swapped := self._swapped(sentence):
            yield Claim(kind="relation", words=swapped, chance=CHANCES["relation"])
        is_title = _is_title(sentence)
        joined = {
            word.text
            for one, other in pairwise(sentence)
            if one.plain + other.plain in self._plain
            for word in (one, other)
        }
        lost = len(self.missing(text)) / max(1, len(self.words))
        measures = {
            word
            for word, other in pairwise(sentence)
            if other.plain == "of" and word.stem in lists().measures
        }
        for word in sentence:
            kind = self._kind(word, is_title=is_title)
            if kind == "thing" and word in measures:
                kind = "general"
            if kind and word.text not in joined:
                chance = CHANCES[kind] + (REPLACED * lost if kind == "thing" else 0)
                yield Claim(kind=kind, words=word.text, chance=chance)

    def _kind(self, word: Word, *, is_title: bool) -> str:
        """The kind of a word's claim; empty where it makes none."""
        if word.plain in self._plain:
            return ""
        kind = self._attribute(word)
        if kind is not None:
            return kind
        if not is_content(word):
            return ""
        if self.has(word):
            return "plural" if self._is_other_number(word) else ""
        if word.stem in lists().general:
            return "general"
        is_name = word.text[:1].isupper() and not word.opens and not is_title
        return "name" if is_name else _class_of(word)

    def _attribute(self, word: Word) -> str | None:
        """The kind of the claim of a word from the lists, or None where it stands in none."""
        known = lists()
        if colour := known.colours.get(word.plain):
            return "" if colour in self._colours else "colour"
        if shade := known.shades.get(word.plain):
            missing = "shade" if self._shades else "unasked-shade"
            return "" if shade in self._shades else missing
        if number := _number(word):
            return "" if self._counts(word, number) else "number"
        if word.plain in known.negations:
            return "negation"
        if known.opposites.get(word.plain) in self._plain:
            return "relation"
        return "relation" if word.plain in known.relations and not self.has(word) else None

    def _counts(self, word: Word, number: str) -> bool:
        """Whether the captions count the same, or one where they do not count at all."""
        if number in self._numbers:
            return True
        return number == "1" and not word.is_number and not self._numbers

    def _is_other_number(self, word: Word) -> bool:
        """Whether the captions have the word in the other number only, and count nothing."""
        if self._numbers or word.plain in self._plain:
            return False
        irregular = lists().irregular
        return any(
            {word.plain, one} in ({few, f"{few}s"}, {few, f"{few}es"})
            or word.plain == irregular.get(one)
            or one == irregular.get(word.plain)
            for one in self._plain
            for few in (min(word.plain, one, key=len),)
        )

    def _swapped(self, sentence: Sequence[Word]) -> str:
        """The words around a relation whose sides have changed places; empty where none has.

        Of a relation that comes more than once, the first counts.
        """
        words = [word.plain for word in sentence]
        for caption in self.sentences:
            stated = [word.plain for word in caption]
            for relation in lists().relations.intersection(words, stated):
                before, after = _sides(sentence, words.index(relation))
                left, right = _sides(caption, stated.index(relation))
                if (before - after) & (right - left) and (after - before) & (left - right):
                    return " ".join(word.text for word in sentence)
        return ""


def is_content(word: Word) -> bool:
    """Whether a word states something: it is none of grammar's, and none about pictures."""
    known = lists()
    if word.plain in known.functions or word.plain in known.depictions:
        return False
    return len(word.plain) > 1 or word.is_number


def _class_of(word: Word) -> str:
    """What a word is by its ending: a doing or quality, a manner, else a thing."""
    if len(word.plain) > 4 and word.plain.endswith("ly"):
        return "manner"
    return "quality" if len(word.plain) > 4 and word.plain.endswith(("ing", "ed")) else "thing"


def _number(word: Word) -> str:
    """The number that a word says, in digits; empty where it says none."""
    if word.is_number:
        return word.plain.lstrip("0") or "0"
    number = lists().numbers.get(word.plain)
    return "" if number is None else str(number)


def _values(words: Collection[str], names: Mapping[str, str]) -> set[str]:
    return {names[word] for word in words if word in names}


def _sides(sentence: Sequence[Word], index: int) -> tuple[set[str], set[str]]:
    """The stems before a word and after it."""
    before = {word.stem for word in sentence[:index] if is_content(word)}
    return before, {word.stem for word in sentence[index + 1 :] if is_content(word)}


def _is_title(sentence: Sequence[Word]) -> bool:
    """Whether most words have a capital, so that one says nothing."""
    counts = Counter(word.text[:1].isupper() for word in sentence if is_content(word))
    return counts[True] > max(counts[False], 1) and len(sentence) > 3
