"""What gets more of a budget: forms, rewrites and styles that the critics take.

An arm is a form in one of its attempts, or a style. Where tokens are scarce, a text is asked for
with a chance in proportion to the arm's rate of acceptance, the best arm always, and none less
often than a floor, so that what fails now is still tried and the texts stay diverse. It is a bandit
with a fixed exploration instead of a decaying one (epsilon-greedy: Sutton and Barto, Reinforcement
Learning, 2nd ed., section 2.2), since parts are asked side by side and learn late from each other.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.engine.fingerprint import unit_interval

Counts = Mapping[str, tuple[int, int]]
"""For each arm, how many texts were asked for and how many of them were taken."""

Chances = Mapping[str, float]
"""For each arm, the chance that a text of it is asked for; 1 for an arm that is not there."""


def form_arm(form: str, attempt: int) -> str:
    """The arm of a form that is asked for the first time, or written again."""
    return f"{form} {attempt}"


def style_arm(style: str) -> str:
    """The arm of a style, whatever the attempt."""
    return f"style: {style}"


def chances(counts: Counts, floor: float) -> dict[str, float]:
    """The chances that some experience gives.

    Rates are counted as if one more text had been asked for and taken, so that a new arm is tried.

    Args:
        counts: the experience.
        floor: the least chance.
    """
    rates = {arm: (taken + 1) / (asked + 1) for arm, (asked, taken) in counts.items()}
    best = max(rates.values(), default=1.0)
    return {arm: max(floor, rate / best) for arm, rate in rates.items()}


def is_drawn(known: Chances, arm: str, *names: str) -> bool:
    """Whether an arm is tried: a coin that always falls the same for the same names."""
    return unit_interval("arm", arm, *names) < known.get(arm, 1.0)


def draw_style(known: Chances, styles: Mapping[str, str], *names: str) -> str:
    """A style, each as likely as its chance; always the same for the same names."""
    weights = {style: known.get(style_arm(style), 1.0) for style in styles}
    left = unit_interval("style", *names) * sum(weights.values())
    for style, weight in weights.items():
        left -= weight
        if left < 0:
            return style
    return next(reversed(weights))
