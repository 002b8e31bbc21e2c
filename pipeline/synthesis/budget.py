"""The tokens that a run may spend: requests wait at a gate until their share is free.

An engine of one's own is counted by the tokens that it writes, a server by those that it bills:
prompts and tries that failed as well. A request reserves what one try can cost at most, and gives
back what it has not used; only a try that a server was asked for again can take a run beyond its
budget. Near the end the gate lets fewer requests through at a time; what does not fit any more is
not asked, and its parts stay open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

SPENT = "the token budget is spent"
"""The error of a request that the gate has not let through."""

FILLER = "a row that fills a batch"
"""The error of a row that stands for nothing."""

_BYTES_PER_TOKEN = 4
"""Of English prose, with the tokenizers of today's LLMs; other scripts have more of both."""

_TOKENS_PER_PICTURE = 1000
"""Ours: a picture of 512 pixels costs 255 tokens with some models, over a thousand with others."""

Key = str
"""Names a request, so that one that comes a second time reserves nothing more."""


def estimate_tokens(text: str) -> int:
    """Tokens of a text that nobody has counted: a quarter of its bytes, rounded up."""
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)


def estimate_prompt_tokens(row: Mapping[str, Any]) -> int:
    """The same for the chat of a request and its pictures."""
    words = sum(estimate_tokens(message["content"]) for message in row["messages"])
    return words + _TOKENS_PER_PICTURE * len(row.get("pictures") or ())


def most_written(row: Mapping[str, Any]) -> int:
    """Tokens that an LLM writes for a request at most."""
    return int(row["sampling_params"]["max_tokens"])


def most_billed(row: Mapping[str, Any]) -> int:
    """Tokens that a server bills for one try at a request at most, as far as can be told."""
    return estimate_prompt_tokens(row) + most_written(row)


def written_tokens(row: Mapping[str, Any]) -> int:
    """Tokens that an LLM has written for a request, estimated where its backend does not say."""
    return count_written(row.get("generated_text"), row.get("num_generated_tokens"))


def count_written(text: str | None, counted: float | None) -> int:
    """Tokens of an answer: as its backend has counted them, or else estimated."""
    return estimate_tokens(text or "") if counted is None else int(counted)


def spent_tokens(row: Mapping[str, Any]) -> int:
    """Tokens that an answered request has cost: what its server bills, or those written here."""
    billed = row.get("num_billed_tokens")
    return written_tokens(row) if billed is None else int(billed)


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
        most_tokens: Callable[[Mapping[str, Any]], int],
    ) -> None:
        self._budget = budget
        self._error = error_column
        self._rows_per_batch = rows_per_batch
        self._most_tokens = most_tokens

    def __call__(self, block: pa.Table) -> pa.Table:
        """The same rows, and fillers; those that may not go carry `SPENT` as their error."""
        import ray

        rows = block.to_pylist()
        open_rows = [row for row in rows if not row[self._error]]
        wanted = [(key_of(row), self._most_tokens(row)) for row in open_rows]
        granted: set[Key] = ray.get(self._budget.reserve.remote(wanted))
        for row in open_rows:
            if key_of(row) not in granted:
                row[self._error] = SPENT
        rows += [{**rows[0], self._error: FILLER}] * (-len(rows) % self._rows_per_batch)
        return pa.Table.from_pylist(rows, schema=block.schema)


def key_of(row: Mapping[str, Any]) -> Key:
    """What tells a request from all others of a run."""
    return f"{row['record_id']} {row['role']} {row['kind']} {row['attempt']}"
