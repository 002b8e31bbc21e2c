"""The tokens that a run may have written: requests wait at a gate until their share is free.

A request reserves as many tokens as its answer can have at most, and gives back what it has not
used, so that a run never writes more than its budget. Near the end the gate lets fewer requests
through at a time; what does not fit any more is not asked, and its parts stay open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

SPENT = "the token budget is spent"
"""The error of a request that the gate has not let through."""

FILLER = "a row that fills a batch"
"""The error of a row that stands for nothing."""

Key = str
"""Names a request, so that one that comes a second time reserves nothing more."""


class Budget:
    """Tokens that are spent, and those that are reserved; one Ray actor for a run."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._spent = 0
        self._reserved: dict[Key, int] = {}
        self._changed = asyncio.Condition()

    async def reserve(self, requests: Sequence[tuple[Key, int]]) -> set[Key]:
        """The requests that may go, of a batch: all, or those that fit when nothing is in flight.

        Waits until one of both is so.
        """
        wanted = {key: tokens for key, tokens in requests if key not in self._reserved}
        async with self._changed:
            await self._changed.wait_for(
                lambda: not self._reserved or self._free() >= sum(wanted.values())
            )
            for key, tokens in wanted.items():
                if tokens <= self._free():
                    self._reserved[key] = tokens
        return {key for key, _ in requests if key in self._reserved}

    async def settle(self, answers: Sequence[tuple[Key, int]]) -> None:
        """Take in what the answers of some requests have cost."""
        async with self._changed:
            for key, tokens in answers:
                if self._reserved.pop(key, None) is not None:
                    self._spent += tokens
            self._changed.notify_all()

    async def free(self) -> int:
        """Tokens that are neither spent nor reserved."""
        return self._free()

    def _free(self) -> int:
        return self._limit - self._spent - sum(self._reserved.values())


class Gate:
    """Holds requests back until the budget has room for them; what Ray Data's actor is made of.

    What it lets through must reach the engine before it lets more through: a row that waited there
    for its batch to fill would never give back what it has reserved. So it takes a block, and gives
    a batch of the engine, whole.
    """

    def __init__(
        self,
        budget: Any,  # noqa: ANN401 - see `Collector`
        error_column: str,
        rows_per_batch: int,
    ) -> None:
        self._budget = budget
        self._error = error_column
        self._rows_per_batch = rows_per_batch

    def __call__(self, block: pa.Table) -> pa.Table:
        """The same rows, and fillers; those that may not go carry `SPENT` as their error."""
        import ray

        rows = block.to_pylist()
        open_rows = [row for row in rows if not row[self._error]]
        wanted = [(key_of(row), row["sampling_params"]["max_tokens"]) for row in open_rows]
        granted: set[Key] = ray.get(self._budget.reserve.remote(wanted))
        for row in open_rows:
            if key_of(row) not in granted:
                row[self._error] = SPENT
        rows += [{**rows[0], self._error: FILLER}] * (-len(rows) % self._rows_per_batch)
        return pa.Table.from_pylist(rows, schema=block.schema)


def key_of(row: Mapping[str, Any]) -> Key:
    """What tells a request from all others of a run."""
    return f"{row['record_id']} {row['role']} {row['kind']} {row['attempt']}"
