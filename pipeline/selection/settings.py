"""What a recipe may say about the selection, as a sentence.

    select:
      rules:                      # a text stays that passes all of these,
        short_side: {min: 256}
        clip_score: {quantile: 0.1, within: source}
      any:                        # one of these at least,
        - clip_score: {min: 0.3}
        - {clip_score: {min: 0.25}, caption_quality: {min: 1}}
      top:                        # and is, of what is left, among the best of its group;
        - {score: clip_score, share: 0.3, within: source}
        - {score: chance, most: 20000, within: source}
      weights:                    # and it is read the oftener, the higher its score.
        clip_score: {low: 0.15, high: 0.3}

A score is a number in the table `scores` or `pictures`, or `chance`, which is drawn from the
record's id. Where it does not apply (null), it passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.engine.schemas import TABLES
from pipeline.settings import Settings

CHANCE = "chance"
"""A number in [0, 1) that is drawn from the record's id: a random choice that every run repeats."""

_NO_MEASURE = {"perceptual_hash", "clip_score_shuffled"}
"""A number that names the picture, and the score of a wrong pair."""


def _scores() -> Iterator[tuple[str, str]]:
    for table in ("pictures", "scores"):
        for field in TABLES[table]:
            is_number = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
            if (is_number or pa.types.is_boolean(field.type)) and field.name not in _NO_MEASURE:
                yield field.name, table


TABLE_OF = dict(_scores())
"""The scores that a recipe may name, with the table that holds them; `chance` is one beside."""


def _known(name: str) -> str:
    if name != CHANCE and name not in TABLE_OF:
        message = f"there is no score {name!r}; allowed are {', '.join([*TABLE_OF, CHANCE])}"
        raise ValueError(message)
    return name


def _as_list(value: Any) -> Any:  # noqa: ANN401 - unchecked input
    return [value] if isinstance(value, dict) else value


Score = Annotated[str, AfterValidator(_known)]
Group = Literal["source", "style"]
"""What texts may be grouped by. A text without a style is in no group, and passes."""


class Rule(Settings):
    """What a score must be for a text to stay; a score that does not apply (null) passes."""

    min: float | None = None
    """Smallest score that stays, in the score's own unit."""
    max: float | None = None
    """Largest score that stays."""
    quantile: float | None = Field(default=None, gt=0, lt=1)
    """Share of the captions to leave out from below, turned into a number once."""
    false_accept: float | None = Field(default=None, gt=0, lt=1)
    """For `clip_score`: share of the shuffled pairs that the cut lets pass, turned into a number
    once."""
    within: Group | None = None
    """With `quantile`: the lowest share of each source, or of the texts in each style."""

    @model_validator(mode="after")
    def _says_something(self) -> Rule:
        lower = [
            name for name in ("min", "quantile", "false_accept") if getattr(self, name) is not None
        ]
        if not lower and self.max is None:
            message = "a rule needs min, max, quantile or false_accept"
            raise ValueError(message)
        if len(lower) > 1:
            message = f"{' and '.join(lower)} set the lower limit: keep one"
            raise ValueError(message)
        if self.within is not None and self.quantile is None:
            message = "within has no effect without quantile"
            raise ValueError(message)
        return self


class Top(Settings):
    """The best of what the rules leave: a share of the records, or a quota."""

    score: Score
    """A record counts by its best caption, and of equal ones `chance` takes the higher."""
    share: float | None = Field(default=None, gt=0, lt=1)
    """Share of the records that stays."""
    most: int | None = Field(default=None, ge=1)
    """Number of records that stay at the most."""
    within: Group | None = None
    """Count in each source, or each style, for itself. With `style` it is about texts in a style,
    else about captions; other texts go along with their record."""

    @model_validator(mode="after")
    def _has_a_size(self) -> Top:
        if (self.share is None) == (self.most is None):
            message = "top needs either share or most"
            raise ValueError(message)
        return self


class Ramp(Settings):
    """How a score becomes a weight: `least` up to `low`, then in a straight line to 1 at `high`."""

    low: float
    """Score up to which a caption has the weight `least`."""
    high: float
    """Score from which on a caption has the weight 1."""
    least: float = Field(default=0.1, gt=0, lt=1)
    """Smallest weight. Ours: a tenth leaves a caption to be read in one epoch of ten."""

    @model_validator(mode="after")
    def _rises(self) -> Ramp:
        if self.low >= self.high:
            message = "low must be less than high"
            raise ValueError(message)
        return self


class SelectSettings(Settings):
    """What stays, and where it goes."""

    rules: dict[Score, Rule] = Field(default_factory=dict)
    """By score, in the order in which they are tried; the first that fails gives the reason."""
    any: list[dict[Score, Rule]] = Field(default_factory=list)
    """Sets of rules; a text must pass all the rules of one set at least."""
    top: Annotated[list[Top], BeforeValidator(_as_list)] = Field(default_factory=list)
    """Shares and quotas of what the rules leave, each of what the one before it leaves."""
    weights: dict[Score, Ramp] = Field(default_factory=dict)
    """Scores that say how often a caption is read, instead of whether: factors of its `weight` in
    the shards."""
    false_accept: float = Field(default=0.05, gt=0, lt=1)
    """Share of the shuffled pairs that the suggested cut of the CLIP score lets pass."""
    drop_duplicates: bool = True
    """Leave out all but one of records with equal content."""
    mixed_share: float = Field(default=1 / 3, ge=0, le=1)
    """Share of the image records for the mixed stream; 1/3 follows from image:mixed = 2:1. Records
    that the LLM has bridged come first, and may be more."""
    keep_original: float = Field(default=0.2, ge=0, le=1)
    """How often a reader takes a record's own caption where it has captions of an LLM, too.
    Default: the best mix in Betker et al., Improving Image Generation with Better Captions (2023),
    section 3.4 and Nguyen et al., arXiv 2307.10350, keeps a part of the original ones."""

    @model_validator(mode="after")
    def _has_wrong_pairs(self) -> SelectSettings:
        for rules in self.rule_sets():
            for score, rule in rules.items():
                if rule.false_accept is not None and score != "clip_score":
                    message = f"false_accept needs wrong pairs: clip_score has them, {score} not"
                    raise ValueError(message)
        return self

    def rule_sets(self) -> list[dict[Score, Rule]]:
        """All sets of rules: the one that must hold, and the alternatives."""
        return [self.rules, *self.any]

    def scores(self) -> set[Score]:
        """Every score that a text's end depends on."""
        ruled = {score for rules in self.rule_sets() for score in rules}
        ties = {CHANCE} if self.top else set()
        return ruled | {top.score for top in self.top} | set(self.weights) | ties
