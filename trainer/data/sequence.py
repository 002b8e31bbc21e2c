"""A document as data: its segments, the one writer to tokens, and the one reader back.

A text is `<txt> ids </txt>`, a picture `<img> codes </img>` in the vocabulary's order, a sound
`<aud> codes </aud>` frame by frame; `<negative>` or `<style>` before a text says what it is. With
side tokens in the vocabulary a picture starts with its rows and columns. `<eos>` ends a document.

Legend: L tokens of a document, h w code grid, G codes of a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from tokenizer_cache.code_order import to_grid, to_sequence
from tokenizer_cache.layouts.sequence import Reader, check_range, one_space
from tokenizer_cache.vocabulary import TokenRange, Vocabulary
from trainer.settings import LossSettings

Role = Literal["condition", "target", "hidden"]
"""`condition` is given for what follows, `target` is to be learnt, and `hidden` is left out: the
codes behind it stand in the grid where they would with it."""

BRACKETS = {"text": ("<txt>", "</txt>"), "image": ("<img>", "</img>"), "audio": ("<aud>", "</aud>")}
MARKS = ("<negative>", "<style>")
_SPECIALS = {token for pair in BRACKETS.values() for token in pair} | set(MARKS)


class Place(NamedTuple):
    """Where ids lie in the files of a shard: a text's in the index, codes in the tar.

    Attributes:
        shard: its number.
        start: the first id in the index, or the first byte of the codes in the tar.
        crc32: of the codes' bytes.
    """

    shard: int
    start: int
    crc32: int = 0


class Segment(NamedTuple):
    """A text, a picture or a sound, or a part of one.

    Attributes:
        modality: `text`, `image` or `audio`.
        ids: (size,) its tokenizer's own ids in reading order, or where they lie.
        size: how many ids it has as a whole.
        start: the first of the ids that the document has ...
        stop: ... and the one after the last.
        role: what it is in the document.
        mark: a special token before it, one of `MARKS`.
        sides: rows and columns of a picture.
    """

    modality: str
    ids: np.ndarray | Place
    size: int
    start: int
    stop: int
    role: Role = "target"
    mark: str | None = None
    sides: tuple[int, int] | None = None

    @property
    def is_cut(self) -> bool:
        """Whether it is a text that goes on after its last id here."""
        return self.modality == "text" and self.stop < self.size

    def part(self, start: int, stop: int) -> Segment:
        """Its ids `start` to `stop` - 1, at most those that there are."""
        return self._replace(start=start, stop=min(stop, self.size))

    def as_(self, role: Role) -> Segment:
        """The same in another role."""
        return self._replace(role=role)

    def continues(self, before: Segment | None) -> bool:
        """Whether it is the part that follows `before`, so that no bracket is between them."""
        return before is not None and before.ids is self.ids and before.stop == self.start


class Written(NamedTuple):
    """A document as the model reads it.

    Attributes:
        tokens: (L,) int64 ids of the vocabulary.
        weights: (L,) float32, what each counts as a target.
        places: (L,) int64 in the code grid: i + 2 at code i of a picture, i + 1 at an `<img>`
            before it, and 0 elsewhere.
        no_targets: tokens that the model must not learn to expect: brackets after a cut.
    """

    tokens: np.ndarray
    weights: np.ndarray
    places: np.ndarray
    no_targets: tuple[int, ...] = ()


def text_segment(ids: Sequence[int], vocabulary: Vocabulary) -> Segment:
    """A text given as its tokenizer's ids.

    Raises:
        ValueError: when the vocabulary has no such ids.
    """
    check_range(ids, vocabulary.text.size, "text tokens")
    return Segment("text", np.array(ids, np.int64), len(ids), 0, len(ids))


def codes_segment(codes: np.ndarray, held: TokenRange) -> Segment:
    """A picture given as (h, w) codes, or a sound as (n, q).

    Raises:
        ValueError: when the vocabulary has no such codes, or pictures of another grid.
    """
    if held.grid is not None and codes.ndim == 2 and codes.shape != held.grid:
        message = f"an image has {codes.shape} codes; the vocabulary says {held.grid}"
        raise ValueError(message)
    ids = to_sequence(codes, held).astype(np.int64)
    check_range(ids.tolist(), held.size, "codes")
    sides = (codes.shape[0], codes.shape[-1])
    return Segment(held.modality, ids, len(ids), 0, len(ids), sides=sides)


class Writer:
    """Writes segments as tokens, with all that the model is told of them."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        loss: LossSettings | None = None,
        read: Callable[[Segment], np.ndarray] | None = None,
    ) -> None:
        """Learn the vocabulary.

        Args:
            vocabulary: numbers the tokens.
            loss: what each kind of token counts; all alike by default.
            read: the ids of a segment that lies in a shard.
        """
        self.vocabulary = vocabulary
        self._read = read
        self._end = vocabulary.special("<eos>")
        known = vocabulary.special_tokens
        self._special = {token: vocabulary.special(token) for token in known if token in _SPECIALS}
        self._first = {
            name: vocabulary.range_of(name).start for name in BRACKETS if vocabulary.has(name)
        }
        self._has_places = vocabulary.has("image") and vocabulary.image.grid is not None
        self._first_side = vocabulary.range_of("side").start if vocabulary.has("side") else None
        weights = loss or LossSettings()
        self._weights = {
            (name, role): getattr(weights, name) * (1 if role == "target" else weights.condition)
            for name in BRACKETS
            for role in ("condition", "target", "hidden")
        }

    def length(self, segments: Sequence[Segment]) -> int:
        """How many tokens they are, without `<eos>`; nothing is read for it."""
        total, before = 0, None
        for each in segments:
            if each.role != "hidden":
                total += each.stop - each.start
            if not each.continues(before):
                has_sides = each.modality == "image" and self._first_side is not None
                total += 2 + 2 * has_sides + (each.mark is not None)
            before = each
        return total

    def write(self, segments: Sequence[Segment], *, ends: bool = True) -> Written:
        """The document of some segments, with `<eos>` where it `ends`.

        Raises:
            BadShardError: when ids cannot be read.
        """
        length = self.length(segments) + ends
        tokens, places = np.empty(length, np.int64), np.zeros(length, np.int64)
        weights = np.ones(length, np.float32)
        no_targets = []
        at, before = 0, None
        for number, each in enumerate(segments):
            begin = at
            if not each.continues(before):
                at = self._open(each, tokens, places, at)
            if each.role != "hidden":
                at = self._fill(each, tokens, places, at)
            if number + 1 == len(segments) or not segments[number + 1].continues(each):
                tokens[at] = self._special[BRACKETS[each.modality][1]]
                if each.is_cut:
                    no_targets.append(at)
                at += 1
            weight = self._weights[each.modality, each.role]
            if weight != 1:  # all count 1 already
                weights[begin:at] = weight
            before = each
        if ends:
            tokens[at] = self._end
        return Written(tokens, weights, places, tuple(no_targets))

    def prompt(self, conditions: Sequence[Segment], following: str, *, start: int = 0) -> Written:
        """Some segments and the bracket that opens what the model is to write.

        Args:
            conditions: what is given.
            following: modality of what comes next.
            start: the first of its ids, where those before it are among the conditions.
        """
        held = self.vocabulary.range_of(following)
        ids = np.zeros(0, np.int64)
        nothing = Segment(following, ids, start, start, start, sides=held.grid)
        whole = self.write([*conditions, nothing], ends=False)
        return Written(whole.tokens[:-1], whole.weights[:-1], whole.places[:-1])

    def _open(self, segment: Segment, tokens: np.ndarray, places: np.ndarray, at: int) -> int:
        """Write what is before a segment's ids at a token, and return the token after it."""
        opening = [self._special[BRACKETS[segment.modality][0]]]
        if segment.mark is not None:
            opening.insert(0, self._special[segment.mark])
        if segment.modality == "image" and self._first_side is not None:
            assert segment.sides is not None, "a picture has a grid"  # noqa: S101
            opening += [self._first_side + side - 1 for side in segment.sides]
        stop = at + len(opening)
        tokens[at:stop] = opening
        if self._has_places and segment.modality == "image":
            places[stop - 1] = segment.start + 1
        return stop

    def _fill(self, segment: Segment, tokens: np.ndarray, places: np.ndarray, at: int) -> int:
        """Write a segment's ids at a token, and return the token after them."""
        ids = segment.ids
        if isinstance(ids, Place):
            assert self._read is not None, "its writer knows the shards"  # noqa: S101
            ids = self._read(segment)
        stop = at + segment.stop - segment.start
        own, first = ids[segment.start : segment.stop], self._first[segment.modality]
        np.add(own, first, out=tokens[at:stop], dtype=np.int64)
        if self._has_places and segment.modality == "image":
            places[at:stop] = np.arange(segment.start + 2, segment.stop + 2)
        return stop


def read_document(tokens: Sequence[int], vocabulary: Vocabulary) -> list[Segment]:
    """The segments of a document's tokens; whether they were given or learnt is not written there.

    Raises:
        ValueError: when the tokens are no document, or go on after its end.
    """
    reader = Reader(one_space(tokens))
    segments = []
    while not (reader.is_at_end(()) or reader.take(vocabulary.special("<eos>"))):
        marks = (mark for mark in MARKS if reader.take(vocabulary.special(mark)))
        mark = next(marks, None)
        brackets = BRACKETS.items()
        found = (name for name, pair in brackets if reader.take(vocabulary.special(pair[0])))
        modality = next(found, None)
        if modality is None:
            message = f"{reader.next()} opens no segment"
            raise ValueError(message)
        ids = reader.until(vocabulary.special(BRACKETS[modality][1]))
        sides = None
        if modality == "image" and vocabulary.has("side"):
            first = vocabulary.range_of("side").start
            rows, columns = (side - first + 1 for side in ids[:2])
            sides, ids = (rows, columns), ids[2:]
        held = vocabulary.range_of(modality)
        own = [each - held.start for each in ids]
        check_range(own, held.size, f"{modality} tokens")
        segments.append(
            Segment(modality, np.array(own, np.int64), len(own), 0, len(own), mark=mark,
                    sides=sides)
        )  # fmt: skip
    reader.expect_end()
    return segments


def ids_of(segment: Segment) -> np.ndarray:
    """(size,) int64 ids of a segment that was read."""
    assert isinstance(segment.ids, np.ndarray), "it was read"  # noqa: S101
    return segment.ids


def codes_of(segment: Segment, vocabulary: Vocabulary) -> np.ndarray:
    """The codes of a whole picture that was read, (h, w) int64, or of a sound, (n, q)."""
    held = vocabulary.range_of(segment.modality)
    codes = to_grid(ids_of(segment), held)
    return codes.reshape(segment.sides) if segment.sides and held.grid is None else codes
