"""What may follow in a document, so that a model that has learnt little still writes documents.

After `<img>` come the codes of a whole picture, after a text's ids more of them or its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tokenizer_cache.vocabulary import Vocabulary
from trainer.data.sequence import BRACKETS


class State(NamedTuple):
    """Where in a document its next token is.

    Attributes:
        inside: the modality of the open segment; `side` before the codes of a picture that says its
            rows and columns, `between` segments, `ended` after the last.
        num: tokens that are left of a picture or its sides, and tokens that a sound has so far.
    """

    inside: str
    num: int = 0


BETWEEN, ENDED = State("between"), State("ended")


class Grammar:
    """The ids that may follow in each state."""

    def __init__(self, vocabulary: Vocabulary, *, opens: Sequence[str] = ()) -> None:
        """Learn the vocabulary.

        Args:
            vocabulary: the id space.
            opens: modalities that may be opened after a segment; without one, a document ends with
                its first segment.
        """
        self.vocabulary = vocabulary
        self._opens = tuple(opens)
        self._opened = {vocabulary.special(BRACKETS[name][0]): name for name in opens}
        self._ids: dict[State, Tensor] = {}

    def start(self, modality: str) -> State:
        """The state behind the bracket, and the sides, that open a segment.

        Raises:
            ValueError: when it is a picture, and the vocabulary has no grid for all of them.
        """
        is_image = modality == "image"
        return State(modality, self.vocabulary.image.num_codes if is_image else 0)

    def kind(self, state: State) -> State:
        """The same for all states that the same ids may follow."""
        inside, num = state
        if inside == "image":
            return State(inside, min(num, 1))
        if inside == "audio":
            first = self._num_codebooks if num else 0
            return State(inside, first + num % self._num_codebooks)
        return state

    def modality(self, kind: State) -> str:
        """Whose settings decide what is drawn."""
        return kind.inside if kind.inside in BRACKETS else "text"

    def ids(self, kind: State, device: torch.device) -> Tensor:
        """(R,) int64 ids that may follow."""
        if kind not in self._ids:
            self._ids[kind] = torch.tensor(self._allowed(kind), device=device)
        return self._ids[kind]

    def after(self, state: State, token: int) -> State:
        """The state after one of the ids that may follow."""
        inside, num = state
        if inside == "between" and token in self._opened:
            modality = self._opened[token]
            has_sides = modality == "image" and self.vocabulary.has("side")
            return State("side", 2) if has_sides else self.start(modality)
        if inside in ("between", "ended"):
            return ENDED
        if inside == "side":
            return State("side", 1) if num == 2 else self.start("image")
        if token == self._end(inside):
            return BETWEEN if self._opens else ENDED
        return State(inside, num + {"text": 0, "image": -1, "audio": 1}[inside])

    def close(self, tokens: Sequence[int], state: State) -> list[int]:
        """What a document that was cut off keeps of its tokens.

        A text is closed; of a sound whole frames are kept; a picture with too few codes is dropped.

        Args:
            tokens: of the document, the bracket of its open segment among them.
            state: behind the last token.
        """
        inside, num = state
        if state in (BETWEEN, ENDED):
            return list(tokens)
        num_cut = num % self._num_codebooks if inside == "audio" else 0
        num -= num_cut
        kept = list(tokens[: len(tokens) - num_cut])
        if inside == "text" or (inside == "image" and not num) or (inside == "audio" and num):
            return [*kept, self._end(inside)]
        opening = self.vocabulary.special(BRACKETS["image" if inside == "side" else inside][0])
        return kept[: len(kept) - 1 - kept[::-1].index(opening)]

    @property
    def _num_codebooks(self) -> int:
        return self.vocabulary.range_of("audio").codebooks or 1

    def _end(self, modality: str) -> int:
        return self.vocabulary.special(BRACKETS[modality][1])

    def _allowed(self, kind: State) -> list[int]:
        inside, num = kind
        if inside == "ended":
            return [self.vocabulary.special("<pad>")]
        if inside == "between":
            return [*self._opened, self.vocabulary.special("<eos>")]
        if inside == "side":
            assert self.vocabulary.image.grid is not None, "a picture was begun"  # noqa: S101
            return [self.vocabulary.range_of("side").start + self.vocabulary.image.grid[-num] - 1]
        held = self.vocabulary.range_of(inside)
        if inside == "text":
            return [self._end(inside), *range(held.start, held.stop)]
        if inside == "image":
            return [*range(held.start, held.stop)] if num else [self._end(inside)]
        size = held.size // self._num_codebooks
        first = held.start + num % self._num_codebooks * size
        may_end = num == self._num_codebooks
        return [*range(first, first + size), *([self._end(inside)] if may_end else [])]
