"""The limits of a selection in words, for the card, the report and whoever asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.selection.cuts import Cut, Cuts, Quantile, false_accept_name, top_name
from pipeline.selection.settings import CHANCE, Group, Rule, Score, SelectSettings, Top

NO_ALTERNATIVE = "no-alternative-met"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """One limit.

    Attributes:
        reason: the code of what it leaves out.
        words: what a reject's detail says of it; empty where that is nothing.
        what: the score that it is on.
        keeps: which values stay.
        why: where the number is from.
        least: the least score that stays; None for another kind of limit, where groups have their
            own, and before it is fitted.
    """

    reason: str
    what: str
    keeps: str
    words: str = ""
    why: str = "set in the recipe"
    least: float | None = None


def sentences(settings: SelectSettings, cuts: Cuts) -> Iterator[Sentence]:
    """The limits in the order in which they are tried; `cuts` is empty before they are fitted."""
    yield from _of_rules(settings.rules, cuts)
    if settings.any:
        alternatives = (
            " and ".join(f"{each.what} {each.keeps}" for each in _of_rules(rules, cuts))
            for rules in settings.any
        )
        yield Sentence(reason=NO_ALTERNATIVE, what="any", keeps=", or ".join(alternatives))
    for number, top in enumerate(settings.top):
        cut = cuts.get(top_name(number))
        yield Sentence(
            reason=reason_of(top.score, "below-top"),
            words=words_of_top(top),
            what=top.score,
            keeps=_at_least(cut),
            why=f"keeps {_size(top)}{_each(top.within)} of what the limits before it leave; "
            "fixed when it was first fitted",
            least=_whole(cut),
        )


def reason_of(score: Score, end: str) -> str:
    """The stable code of a reject: the score, and how it missed its limit."""
    return f"{score.replace('_', '-')}-{end}"


def words_of_quantile(share: float) -> str:
    """What a reject's detail says of a quantile."""
    return f"the cut of the lowest {_percent(share)}"


def words_of_false_accept(share: float) -> str:
    """What a reject's detail says of a wanted share of false accepts."""
    return f"the cut that {_percent(share)} of the shuffled pairs pass"


def words_of_top(top: Top) -> str:
    """What a reject's detail says of a share or a quota."""
    return f"the cut of {_size(top)}"


def _of_rules(rules: Mapping[Score, Rule], cuts: Cuts) -> Iterator[Sentence]:
    for score, rule in rules.items():
        reason = reason_of(score, "below-threshold")
        if rule.min is not None:
            keeps = f"at least {_figure(rule.min)}"
            yield Sentence(reason=reason, what=score, keeps=keeps, least=rule.min)
        if rule.quantile is not None:
            name = Quantile(score=score, share=rule.quantile, within=rule.within).name
            cut = cuts.get(name)
            yield Sentence(
                reason=reason,
                words=words_of_quantile(rule.quantile),
                what=score,
                keeps=_at_least(cut),
                why=f"leaves out the lowest {_percent(rule.quantile)} of the captions"
                f"{_each(rule.within)}, fixed when it was first fitted",
                least=_whole(cut),
            )
        if rule.false_accept is not None:
            cut = cuts.get(false_accept_name(rule.false_accept))
            words = words_of_false_accept(rule.false_accept)
            yield Sentence(
                reason=reason,
                words=words,
                what=score,
                keeps=_at_least(cut),
                why=f"{words}, fixed when it was first fitted",
                least=_whole(cut),
            )
        if rule.max is not None:
            reason = reason_of(score, "above-threshold")
            yield Sentence(reason=reason, what=score, keeps=f"at most {_figure(rule.max)}")


def _size(top: Top) -> str:
    size = f"{top.most:,}" if top.most is not None else _percent(top.share or 0)
    return f"the {'drawn' if top.score == CHANCE else 'best'} {size}"


def _each(within: Group | None) -> str:
    return f" of each {within}" if within else ""


def _at_least(cut: Cut | None) -> str:
    if cut is None:
        return "at least ?"
    limits = [limit.value for limit in cut.groups.values()] or [cut.whole.value]
    numbers = [value for value in limits if value is not None]
    if not numbers:
        return "all"
    low, high = _figure(min(numbers)), _figure(max(numbers))
    return f"at least {low}" if low == high else f"at least {low} to {high}"


def _whole(cut: Cut | None) -> float | None:
    return cut.whole.value if cut and not cut.groups else None


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def _figure(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
