"""How far a corpus is: parts, rows and rates of each stage, and what was left out and why."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pipeline.calibration import read_calibration
from pipeline.engine.corpus import Corpus
from pipeline.ledger.drift import drift
from pipeline.ledger.events import Event, kind_of, last_run
from pipeline.ledger.unread import read_unread
from pipeline.ledger.warnings import warnings

_NUM_ERRORS = 5

Row = dict[str, Any]


def status(corpus: Corpus, holder: str | None = None) -> Row:
    """The state of a corpus as JSON.

    Args:
        corpus: what is looked at.
        holder: who is filling it now, as its lock says; None when nobody is.

    Returns:
        `num_parts`, `num_records` as the sources hold them, `running` (the holder), `tables` (name
        -> parts done, of how many, rows), `stages` of the last run (parts, rows, rows per second,
        and while a run goes on the seconds left), `errors` (the last ones), `models` (name ->
        fingerprint), `rejects` (stage, reason, and how many records or texts), `samples`,
        `audit` since the last run (time, checks, faults; None where there was none), `drift`,
        `calibration` of the CLIP score (its AUC and the suggested cut; None without pairs),
        `unread` (source -> kind of file -> how many it does not read) and `warnings`.
    """
    connection = corpus.connect()
    tables = {}
    for table, paths in corpus.tables.items():
        ((rows,),) = connection.sql(f"SELECT count(*) FROM {table}").fetchall()
        tables[table] = {
            "parts_done": len(corpus.files(table)),
            "parts": len(paths),
            "rows": rows,
        }
    rejects = connection.sql(
        """
        SELECT stage, reason, count(*) FILTER (variant_id IS NULL) AS records,
               count(variant_id) AS texts
        FROM rejects GROUP BY ALL ORDER BY ALL
        """
    ).fetchall()
    streams = connection.sql(
        "SELECT stream, split, count(*), sum(len(record_ids))::BIGINT"
        " FROM samples GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    events = last_run(corpus.root)
    return {
        "corpus": str(corpus.root),
        "num_parts": len(corpus.parts),
        "num_records": sum(part.num_records for part in corpus.parts),
        "running": holder,
        "tables": tables,
        "stages": stages(events, is_running=holder is not None),
        "errors": [event for event in events if kind_of(event) == "error"][-_NUM_ERRORS:],
        "shards": None if corpus.published_shards() is None else str(corpus.shards),
        "models": {name: folder.name for name, folder in corpus.models.items()},
        "rejects": [
            {"stage": stage, "reason": reason, "records": records, "texts": texts}
            for stage, reason, records, texts in rejects
        ],
        "samples": [
            {"stream": stream, "split": split, "samples": samples, "records": records}
            for stream, split, samples, records in streams
        ],
        "audit": next((event for event in events[::-1] if kind_of(event) == "audited"), None),
        "drift": drift(corpus, connection),
        "calibration": _calibration(corpus),
        "unread": read_unread(corpus.root),
        "warnings": warnings(corpus),
    }


def _calibration(corpus: Corpus) -> Row | None:
    found = read_calibration(corpus)
    if found is None:
        return None
    shown = ("num_pairs", "auc", "is_weak", "false_accept", "cut", "true_accept")
    return {name: found[name] for name in shown}


def stages(events: list[Event], *, is_running: bool) -> list[Row]:
    """What each stage of a run has done: parts, rows, rows per second, and the seconds left.

    The rate is over the time from the stage's first event to its last, so that a run whose stages
    work side by side shows each at its own pace. A step over the whole corpus has no parts.
    """
    by_stage: dict[str, list[Event]] = {}
    for event in events:
        if event.get("stage"):
            by_stage.setdefault(event["stage"], []).append(event)
    return [_stage(stage, own, is_running=is_running) for stage, own in by_stage.items()]


def _stage(stage: str, events: list[Event], *, is_running: bool) -> Row:
    done = [event for event in events if kind_of(event) == "part-done"]
    planned = [event["parts"] for event in events if event.get("parts") is not None]
    is_over = any(kind_of(event) in {"stage-done", "fitted"} for event in events)
    parts = planned[-1] if planned else None
    if (
        parts is None and not done
    ):  # a step over the whole corpus says all that it has to say at its end
        whole = [event for event in events if kind_of(event) == "stage-done"]
        rows = sum(event.get("num_rows") or 0 for event in whole)
        seconds = sum(event.get("seconds") or 0.0 for event in whole)
    else:
        rows = sum(event.get("num_rows") or 0 for event in done)
        started, ended = (datetime.fromisoformat(events[n]["time"]) for n in (0, -1))
        seconds = max((ended - started).total_seconds(), 0.0)
    left = None
    if is_running and not is_over and done and parts is not None and seconds:
        left = max(parts - len(done), 0) * seconds / len(done)
    return {
        "stage": stage,
        "parts_done": len(done),
        "parts": parts,
        "rows": rows,
        "num_rejects": sum(event.get("num_rejects") or 0 for event in done),
        "rows_per_s": rows / seconds if seconds else None,
        "seconds_left": left,
        "done": is_over,
    }
