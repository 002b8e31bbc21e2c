"""What became of a request, in the form that every backend hands back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.synthesis.requests import ERROR_COLUMN

_SCHEMA = pa.schema(
    [
        ("generated_text", pa.string()),
        ("num_input_tokens", pa.int64()),
        ("num_generated_tokens", pa.int64()),
        ("finish_reason", pa.string()),
        ("num_billed_tokens", pa.int64()),
        ("notices", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer, or why there is none; the names are `ray.data.llm`'s.

    Attributes:
        generated_text: the answer; None without one.
        num_input_tokens: tokens of the prompt, where they are known.
        num_generated_tokens: tokens of the answer, where they are known.
        finish_reason: `length` when the answer had used up its tokens, else the backend's word.
        num_billed_tokens: what the server bills for all tries, prompts included; None where nobody
            bills.
        notices: what a person should know, a line each.
        error: why there is no answer; empty with one.
    """

    generated_text: str | None = None
    num_input_tokens: int | None = None
    num_generated_tokens: int | None = None
    finish_reason: str | None = None
    num_billed_tokens: int | None = None
    notices: str = ""
    error: str = ""


def add_replies(
    requests: pa.Table, replies: Sequence[Reply], *, carried: Sequence[str]
) -> pa.Table:
    """The rows of some requests with what became of them, and nothing else but what is carried."""
    rows = requests.select(carried)
    for field in _SCHEMA:
        values = [getattr(reply, field.name) for reply in replies]
        rows = rows.append_column(field, pa.array(values, field.type))
    errors = pa.array([reply.error for reply in replies], pa.string())
    return rows.append_column(ERROR_COLUMN, errors)
