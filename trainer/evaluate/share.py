"""A share of some pictures, with its interval."""

from __future__ import annotations

from dataclasses import dataclass

_Z = 1.959964
"""The 97.5 % quantile of the normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How many pictures are right.

    Attributes:
        num_right: those that are.
        num: all of them.
    """

    num_right: int
    num: int

    @property
    def value(self) -> float:
        """The share; 0 of none."""
        return self.num_right / self.num if self.num else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval (Wilson, Probable Inference, 1927)."""
        if not self.num:
            return 0.0, 1.0
        n, p, z2 = self.num, self.value, _Z**2
        middle = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z / (1 + z2 / n) * (p * (1 - p) / n + z2 / (4 * n**2)) ** 0.5
        return max(0.0, middle - half), min(1.0, middle + half)

    def words(self) -> str:
        """The share with its interval, such as `45 % (31 % to 60 %)`."""
        low, high = self.interval
        return f"{self.value:.0%} ({low:.0%} to {high:.0%})"
