"""What img2dataset notes next to a tar and in a sample's JSON: failures, and opt-outs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.engine.parts import UnreadableRecord
from pipeline.sources.files import Problem, plain

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
    """The rows that it failed at: they are only in the Parquet file that it writes for each tar."""
    table = table_of(tar)
    if not table.exists():
        return
    try:
        with pq.ParquetFile(table) as file:
            if not {"key", "status"} <= set(file.schema_arrow.names):
                return
            wanted = {"key", "status", "error_message", "url"} & set(file.schema_arrow.names)
            rows = file.read(columns=sorted(wanted)).to_pylist()
    except (OSError, pa.ArrowException, ValueError) as error:
        detail = f"{plain(table.name)}, which lists failed downloads: {error}"
        yield UnreadableRecord(
            key=f"{name}#failures", reason="ingest-file-unreadable", detail=detail
        )
        return
    for row in rows:
        problem = failure_of(row)
        if problem is not None:
            key = f"{name}/{plain(str(row['key']))}"
            yield UnreadableRecord(key=key, reason=problem.reason, detail=problem.detail)


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
