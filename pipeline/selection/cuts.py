"""What a selection says of the whole corpus, as numbers: quantiles, best shares and quotas.

They are found once and pinned, so that each part is decided alone and new data moves nothing: a
source that has grown since may keep more than its quota, and a new one is cut by the number of the
whole corpus, until `anymix run --refit cuts` counts again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.engine.storage import read_json
from pipeline.selection.settings import Group, Score, SelectSettings
from pipeline.settings import Settings

CUTS_FILE = "cuts.json"


class Quantile(Settings):
    """A share of the captions that is to be left out from below."""

    score: Score
    share: float
    within: Group | None = None

    @property
    def name(self) -> str:
        """What its number is kept under."""
        group = f" of each {self.within}" if self.within else ""
        return f"lowest {self.share!r} by {self.score}{group}"


class CutsSettings(Settings):
    """What has to be turned into numbers, and what decides them."""

    quantiles: list[Quantile]
    false_accepts: list[float]
    """Shares of the shuffled pairs that rules on the CLIP score let pass."""
    false_accept: float
    """That of the suggested cut."""
    top: SelectSettings | None = None
    """The section that has a `top`, which counts what the rules leave; without what decides no
    text's end. None where there is no `top`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The least that stays: a score, and of records with just this score a `chance`.

    `value` is None where all stay.
    """

    value: float | None = None
    chance: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The limit over the whole corpus, and that of each group where it is cut by group."""

    whole: Limit
    groups: Mapping[str, Limit] = field(default_factory=dict)


Cuts = Mapping[str, Cut]
"""By `Quantile.name`, `false_accept_name` and `top_name`."""


def top_name(number: int) -> str:
    """What the number of a `top` is kept under, by its place in the recipe."""
    return f"top.{number}"


def false_accept_name(share: float) -> str:
    """What the number of a wanted share of false accepts is kept under."""
    return f"false accepts {share!r}"


def cuts_settings(settings: SelectSettings) -> CutsSettings:
    """The part of a selection that decides the cuts."""
    quantiles = {
        (score, rule.quantile, rule.within)
        for rules in settings.rule_sets()
        for score, rule in rules.items()
        if rule.quantile is not None
    }
    false_accepts = {
        rule.false_accept
        for rules in settings.rule_sets()
        for rule in rules.values()
        if rule.false_accept is not None
    }
    keeps = ("rules", "any", "top", "drop_duplicates")
    decides = SelectSettings(**{name: getattr(settings, name) for name in keeps})
    return CutsSettings(
        quantiles=[
            Quantile(score=score, share=share, within=within)
            for score, share, within in sorted(quantiles, key=repr)
        ],
        false_accepts=sorted(false_accepts),
        false_accept=settings.false_accept,
        top=decides if settings.top else None,
    )


def read_cuts(folder: Path) -> Cuts:
    """The cuts that were found for a corpus."""
    found: dict[str, Any] = read_json(folder / CUTS_FILE)
    return {
        name: Cut(
            whole=Limit(**cut["whole"]),
            groups={group: Limit(**limit) for group, limit in cut["groups"].items()},
        )
        for name, cut in found.items()
    }


def to_json(cuts: Cuts) -> dict[str, Any]:
    """The cuts as `read_cuts` takes them."""
    return {name: asdict(cut) for name, cut in cuts.items()}
