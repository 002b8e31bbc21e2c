"""One id space for text, image and audio tokens, as an open format: see docs/vocabulary.md.

Special tokens come first, in a block with room to grow; then one range per tokenizer. A new
tokenizer is appended, so that no id ever moves and a trained model's embeddings keep their meaning.
`vocabulary.schema.json` beside this module is the JSON schema of the models here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.storage import read_json
from pipeline.errors import UserError

VERSION: Literal[1] = 1
"""Raised when a reader of the format would take a new file for something else."""

SPECIAL_TOKENS = (
    "<pad>",
    "<eos>",
    "<txt>",
    "</txt>",
    "<img>",
    "</img>",
    "<aud>",
    "</aud>",
    "<row>",
    "<negative>",
    "<style>",
)
"""In the order of their ids. New ones are appended; none is moved or taken out."""

NUM_RESERVED = 32
"""Ids kept for special tokens, used or not."""

SPECIAL = "special"

Modality = Literal["special", "side", "text", "image", "audio"]
Order = Literal["raster", "coarse-first", "scales"]
Grid = tuple[int, int]
Side = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerDescription:
    """What the vocabulary must know of a tokenizer.

    Attributes:
        modality: `text`, `image` or `audio`.
        num_tokens: its ids run from 0 to `num_tokens` - 1.
        fingerprint: hash of the weights or merges that give an id its meaning.
        grid: height and width of an image's code grid; None for text.
        order: the order in which a grid's codes are read.
        scales: the grids from coarse to fine, where the order is not `raster`.
        codebooks: of an audio tokenizer with several: each has its part of the tokens.
    """

    modality: Modality
    num_tokens: int
    fingerprint: str
    grid: Grid | None = None
    order: Order = "raster"
    scales: tuple[Grid, ...] = ()
    codebooks: int | None = None


class Meaning(NamedTuple):
    """What an id stands for: a token of a tokenizer, or of the format itself."""

    modality: str
    tokenizer: str | None
    token: int


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class TokenRange(_Part):
    """The ids of one tokenizer: token `i` of the tokenizer is id `start + i` of the vocabulary."""

    modality: Modality
    """`side` tokens say how large a grid is: token `i` is a side of `i + 1` codes."""
    start: int = Field(ge=0)
    """First id."""
    size: int = Field(ge=1)
    """Number of ids."""
    tokenizer: str | None = Field(default=None, min_length=1)
    """Fingerprint of the tokenizer; null for the special and side tokens."""
    grid: tuple[Side, Side] | None = None
    """Rows and columns of an image's codes; null where they differ from image to image."""
    order: Order | None = None
    """The order in which an image's codes are read; null for what has no grid."""
    scales: tuple[tuple[Side, Side], ...] = ()
    """The grids from coarse to fine, the last of them `grid`; empty in raster order."""
    codebooks: int | None = Field(default=None, ge=2, exclude_if=lambda value: value is None)
    """Of an audio tokenizer that has several codes a frame: code `c` of codebook `q` is its token
    `q * size / codebooks + c`. Left out where there is one."""

    @property
    def stop(self) -> int:
        """The first id after the range."""
        return self.start + self.size

    @property
    def num_codes(self) -> int:
        """How many codes an image has.

        Raises:
            ValueError: when the range has no grid.
        """
        if self.grid is None:
            message = f"the {self.modality} tokens have no grid"
            raise ValueError(message)
        grids = self.scales if self.order == "scales" else [self.grid]
        return sum(height * width for height, width in grids)

    @model_validator(mode="after")
    def _fields_belong_to_the_modality(self) -> Self:
        is_fixed = self.modality in ("special", "side")
        if is_fixed is not (self.tokenizer is None):
            needs = "none" if is_fixed else "the fingerprint of a tokenizer"
            raise _problem("tokenizer", f"{self.modality} tokens have {needs}", self.tokenizer)
        is_image = self.modality == "image"
        if self.grid is not None and not is_image:
            raise _problem("grid", "only image tokens have one", self.grid)
        if is_image is (self.order is None):
            allowed = "image tokens have one" if is_image else "only image tokens have one"
            raise _problem("order", allowed, self.order)
        if self.codebooks is not None and (self.modality != "audio" or self.size % self.codebooks):
            raise _problem("codebooks", "of audio tokens, and a divisor of size", self.codebooks)
        return self

    @model_validator(mode="after")
    def _scales_lead_to_the_grid(self) -> Self:
        if self.order in (None, "raster"):
            if self.scales:
                raise _problem("scales", "only other orders than raster have them", self.scales)
            return self
        sides = [*zip(*self.scales, strict=True)]
        grows = all(list(side) == sorted(set(side)) for side in sides)
        if self.grid is None or not sides or self.scales[-1] != self.grid or not grows:
            raise _problem("scales", f"they grow, and end with the grid {self.grid}", self.scales)
        if self.order == "coarse-first" and any(
            last % side for each in sides for side, last in pairwise(each)
        ):
            raise _problem("scales", "each divides the next one", self.scales)
        return self


class Vocabulary(_Part):
    """All ids of a corpus, as ranges without gaps that start at 0."""

    version: Literal[1] = VERSION
    """Of the format."""
    size: int
    """Number of ids, reserved ones included."""
    special_tokens: tuple[str, ...]
    """Names of the first ids; those of the first range without one are reserved."""
    ranges: tuple[TokenRange, ...] = Field(min_length=1)
    """The special tokens first, then in the order in which they were added."""

    @property
    def fingerprint(self) -> str:
        """Changes when any id changes its meaning."""
        return fingerprint(vocabulary=self.to_json())

    @property
    def text(self) -> TokenRange:
        """The ids of the text tokenizer."""
        return self.range_of("text")

    @property
    def image(self) -> TokenRange:
        """The ids of the image codes."""
        return self.range_of("image")

    def special(self, token: str) -> int:
        """The id of a special token such as `<img>`.

        Raises:
            ValueError: when the vocabulary has no such token.
        """
        if token not in self.special_tokens:
            message = f"the vocabulary has no special token {token}"
            raise ValueError(message)
        return self.special_tokens.index(token)

    def has(self, modality: str) -> bool:
        """Whether there are ids of a modality."""
        return any(known.modality == modality for known in self.ranges)

    def range_of(self, modality: str) -> TokenRange:
        """The ids of a modality; of the newest tokenizer where it has several.

        Raises:
            ValueError: when the vocabulary has no such modality.
        """
        for token_range in reversed(self.ranges):
            if token_range.modality == modality:
                return token_range
        message = f"the vocabulary has no {modality} tokens"
        raise ValueError(message)

    def modality_of(self, token_id: int) -> str:
        """The modality that an id belongs to.

        Raises:
            ValueError: when the id is outside the vocabulary.
        """
        return self.meaning_of(token_id).modality

    def meaning_of(self, token_id: int) -> Meaning:
        """What an id stands for; this is what no extension changes.

        Raises:
            ValueError: when the id is outside the vocabulary.
        """
        if not 0 <= token_id < self.size:
            message = f"id {token_id} is outside the vocabulary of {self.size}"
            raise ValueError(message)
        starts = [token_range.start for token_range in self.ranges]
        held = self.ranges[bisect_right(starts, token_id) - 1]
        return Meaning(held.modality, held.tokenizer, token_id - held.start)

    def append(self, tokenizer: TokenizerDescription) -> Self:
        """The vocabulary with one more tokenizer after the last id; no other id moves."""
        return self._with_ranges(*self.ranges, _range(tokenizer, start=self.size))

    def append_sides(self, longest: int) -> Self:
        """The vocabulary with tokens for the sides of grids, from 1 to `longest` codes."""
        sides = TokenRange(modality="side", start=self.size, size=longest)
        return self._with_ranges(*self.ranges, sides)

    def name_special(self, token: str) -> Vocabulary:
        """The vocabulary with a name for the first reserved id.

        Raises:
            ValueError: when the name is taken or no name, or no id is reserved.
        """
        return parse_vocabulary({**self.to_json(), "special_tokens": [*self.special_tokens, token]})

    def extend(self, tokenizers: Iterable[TokenizerDescription]) -> Self:
        """The vocabulary in which these tokenizers are the newest of their modalities.

        A tokenizer that has its ids already keeps them; its grid and order may change, since they
        give no id another meaning.

        Raises:
            ValueError: when a newer tokenizer stands behind one of them.
        """
        longer = self
        for tokenizer in tokenizers:
            known = [each for each in longer.ranges if each.tokenizer == tokenizer.fingerprint]
            if not known:
                longer = longer.append(tokenizer)
                continue
            if known[0] != longer.range_of(tokenizer.modality):
                message = (
                    f"the {tokenizer.modality} tokenizer {tokenizer.fingerprint} has been followed "
                    "by another one: extend the vocabulary from before"
                )
                raise ValueError(message)
            place = longer.ranges.index(known[0])
            again = _range(tokenizer, start=known[0].start)
            longer = longer._with_ranges(*longer.ranges[:place], again, *longer.ranges[place + 1 :])
        return longer

    def to_json(self) -> dict[str, Any]:
        """The vocabulary as JSON; `parse_vocabulary` gives it back."""
        return self.model_dump(mode="json")

    def _with_ranges(self, *ranges: TokenRange) -> Self:
        return type(self)(size=ranges[-1].stop, special_tokens=self.special_tokens, ranges=ranges)

    @model_validator(mode="after")
    def _ranges_follow_each_other(self) -> Self:
        stop = 0
        for number, held in enumerate(self.ranges):
            if (held.modality == SPECIAL) is not (number == 0):
                place = f"ranges.{number}.modality"
                raise _problem(place, "special tokens are the first range alone", held.modality)
            if held.start != stop:
                raise _problem(f"ranges.{number}.start", f"the range starts at {stop}", held.start)
            stop = held.stop
        if self.size != stop:
            raise _problem("size", f"the last range ends at {stop}", self.size)
        return self

    @model_validator(mode="after")
    def _special_tokens_are_known(self) -> Self:
        names, place = self.special_tokens, "special_tokens"
        # A file from before the last ones were appended has fewer, and others' names may follow.
        pairs = zip(names, SPECIAL_TOKENS, strict=False)
        num_own = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        if not num_own:
            raise _problem(place, f"they begin with {', '.join(SPECIAL_TOKENS)}", names)
        for number, name in enumerate(names[num_own:], start=num_own):
            if name in SPECIAL_TOKENS:
                allowed = f"the format has this name for id {SPECIAL_TOKENS.index(name)}"
                raise _problem(f"{place}.{number}", allowed, name)
        if len(set(names)) != len(names) or not all(
            name.startswith("<") and name.endswith(">") for name in names
        ):
            raise _problem(place, "each is <another>", names)
        if len(names) > self.ranges[0].size:
            raise _problem(place, f"at most {self.ranges[0].size}, as in ranges.0.size", names)
        return self

    @model_validator(mode="after")
    def _tokenizers_differ(self) -> Self:
        prints = [each.tokenizer for each in self.ranges if each.tokenizer]
        for number, held in enumerate(self.ranges):
            if held.tokenizer and prints.count(held.tokenizer) > 1:
                place = f"ranges.{number}.tokenizer"
                raise _problem(place, "each has one range", held.tokenizer)
            if held.modality == "image" and held.grid is None and not self.has("side"):
                place = f"ranges.{number}.grid"
                raise _problem(place, "without a grid for all images there are side tokens", None)
        return self


def build_vocabulary(*tokenizers: TokenizerDescription) -> Vocabulary:
    """The vocabulary of some tokenizers: special tokens, then theirs in the given order."""
    specials = TokenRange(modality="special", start=0, size=NUM_RESERVED)
    empty = Vocabulary(size=NUM_RESERVED, special_tokens=SPECIAL_TOKENS, ranges=(specials,))
    return empty.extend(tokenizers)


def read_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary in a `vocabulary.json`.

    Raises:
        UserError: naming the file and each field that breaks a rule of the format.
    """
    try:
        return parse_vocabulary(read_json(path))
    except ValueError as error:
        raise UserError(
            f"{path} is no vocabulary: {error}",
            "docs/vocabulary.md describes the format.",
        ) from error


def parse_vocabulary(value: object) -> Vocabulary:
    """The vocabulary that JSON describes.

    Raises:
        ValueError: naming each field that breaks a rule of the format.
    """
    try:
        return Vocabulary.model_validate(value)
    except ValidationError as error:
        raise ValueError("; ".join(_describe(each) for each in error.errors())) from error


def _range(tokenizer: TokenizerDescription, *, start: int) -> TokenRange:
    return TokenRange(
        modality=tokenizer.modality,
        start=start,
        size=tokenizer.num_tokens,
        tokenizer=tokenizer.fingerprint,
        grid=tokenizer.grid,
        order=tokenizer.order if tokenizer.modality == "image" else None,
        scales=tokenizer.scales,
        codebooks=tokenizer.codebooks,
    )


def _problem(field: str, allowed: str, found: object) -> ValueError:
    """What a rule over several fields says; pydantic knows no field of it."""
    return ValueError(f"{field}: {allowed} (found {found!r})")


def _describe(problem: Any) -> str:  # noqa: ANN401 - pydantic's
    """The field, what is allowed and what was found."""
    way, message = [str(each) for each in problem["loc"]], str(problem["msg"])
    if problem["type"] == "value_error":
        return ".".join([*way, message.removeprefix("Value error, ")])
    shown = "" if problem["type"] == "missing" else f" (found {problem['input']!r})"
    return f"{'.'.join(way)}: {message}{shown}"
