"""How fast requests may be sent.

They are spread evenly. A bucket that lets a minute's worth through at once, as rate limiters do,
sends up to twice the limit in its first minute.
"""

from __future__ import annotations

import asyncio


class Pace:
    """At most so many units a minute, in the order in which they are asked for."""

    def __init__(self, per_minute: int | None) -> None:
        self._seconds_each = 60 / per_minute if per_minute else 0.0
        self._free_at = 0.0

    def reserve(self, amount: int, now: float) -> float:
        """Take the next free place for some units; returns how many seconds off it is."""
        start = max(now, self._free_at)
        self._free_at = start + amount * self._seconds_each
        return start - now

    async def wait(self, amount: int) -> None:
        """Wait until some units may go."""
        await asyncio.sleep(self.reserve(amount, asyncio.get_running_loop().time()))
