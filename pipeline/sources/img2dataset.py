"""What img2dataset notes next to a tar and in a sample's JSON: failures, and opt-outs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, TypeVar

from pipeline.engine.parts import UnreadableRecord
from pipeline.sources.files import Problem, plain, problem_of
from pipeline.sources.row_groups import read_rows, shape_of

_COLUMNS = ("key", "status", "error_message", "url")
_DISALLOWED = "X-Robots-Tag"  # in its error message when it honours one
_Place = TypeVar("_Place", bound=PurePath)
_SIGNALS = ("x-robots-tag", "tdm-reservation")


def failure_of(row: Mapping[str, Any]) -> Problem | None:
    """The failure that the status columns tell of."""
    status, message = row.get("status"), str(row.get("error_message"))
    if status in (None, "success"):
        return None
    reason = "ingest-opted-out" if _DISALLOWED in message else "ingest-download-failed"
    return Problem(reason=reason, detail=plain(f"{status}: {message} ({row.get('url')})"))


def failures(tar: Path, name: str) -> Iterator[UnreadableRecord]:
    """The rows that it failed at: they are only in the Parquet file that it writes for each tar.

    Raises:
        OSError: when the store that it lies on fails.
    """
    table = table_of(tar)
    try:
        rows = list(_rows(table)) if table.exists() else []
    except OSError as error:
        rows = [problem_of(error, table)]
    for row in rows:
        if isinstance(row, Problem):
            detail = f"{plain(table.name)}, which lists failed downloads: {row.detail}"
            yield UnreadableRecord(
                key=f"{name}#failures", reason="ingest-file-unreadable", detail=detail
            )
            return
        problem = failure_of(row)
        if problem is not None:
            key = f"{name}/{plain(str(row['key']))}"
            yield UnreadableRecord(key=key, reason=problem.reason, detail=problem.detail)


def _rows(table: Path) -> Iterator[dict[str, Any] | Problem]:
    shape = shape_of(table)
    if isinstance(shape, Problem):
        yield shape
        return
    names, lengths = shape
    if {"key", "status"} <= set(names):
        yield from read_rows(table, 0, sum(lengths), lambda _: _COLUMNS)


def table_of(tar: _Place) -> _Place:
    """Where the Parquet file of a tar is, if it has one."""
    return tar.with_suffix(".parquet")


def signals(metadata: Mapping[str, Any]) -> dict[str, str]:
    """What it recorded of the response's headers."""
    headers = metadata.get("headers")
    fields = {**(headers if isinstance(headers, dict) else {}), **metadata}
    return {
        name: "\n".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in fields.items()
        if name.lower().replace("_", "-") in _SIGNALS and value is not None
    }
