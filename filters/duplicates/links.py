"""Which record each record leaves for, and what follows from links that follow one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EXACT = ("bytes", "pixels", "text", "sound")
METHODS = (*EXACT, "perceptual", "semantic", "evaluation")
"""How a copy was found, from the strictest kind on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Where each record goes, by its place in the order of preference.

    Attributes:
        to: (N,) int64: the place of the record that it leaves for; its own where it stays.
        item: (N,) int64: the picture of an evaluation set that it is a copy of; -1 without one.
        method: (N,) int8: index into `METHODS`.
        distance: (N,) float32: to what it leaves for.
        threshold: (N,) float32: the largest distance that would have done.
    """

    to: np.ndarray
    item: np.ndarray
    method: np.ndarray
    distance: np.ndarray
    threshold: np.ndarray

    @classmethod
    def none(cls, count: int) -> Links:
        """All records stay."""
        return cls(
            to=np.arange(count),
            item=np.full(count, -1),
            method=np.zeros(count, np.int8),
            distance=np.zeros(count, np.float32),
            threshold=np.zeros(count, np.float32),
        )

    def stays(self, places: np.ndarray) -> np.ndarray:
        """Whether the records at these places have not left so far: (Q,) bool."""
        return (self.to[places] == places) & (self.item[places] < 0)

    def note(
        self, places: np.ndarray, method: str, distance: np.ndarray | float, threshold: float
    ) -> None:
        """Say how the records at these places have come to leave."""
        self.method[places] = METHODS.index(method)
        self.distance[places] = distance
        self.threshold[places] = threshold

    def last(self) -> np.ndarray:
        """The place of each record's last link, which leads to what stays: (N,) int64.

        It is the record's own where that leaves for what stays, or stays itself. What leads to a
        copy of an evaluation set's picture ends there.
        """
        last = np.arange(len(self.to))
        while True:
            then = self.to[last]
            ends = (self.to[then] == then) & (self.item[then] < 0)
            moved = np.where(ends, last, then)
            if (moved == last).all():
                return last
            last = moved
