"""How far a corpus has moved since its pinned models were fitted on it.

The rule (ours): a refit looks justified when at least half of the records are new to the model, or
when what it is used for has moved: a score's distribution over the new parts differs from that over
the parts of the fit by a Kolmogorov-Smirnov distance of 0.1 or more that chance gives in less than
one case of a hundred (Smirnov 1948), or the image tokenizer's squared error is a tenth higher.

A part that has changed anywhere counts as new, so that the share of new records is an upper bound.
"""

from __future__ import annotations

from collections.abc import Set
from math import sqrt
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from duckdb import DuckDBPyConnection

from pipeline.engine.corpus import MODEL_FILE, Corpus
from pipeline.engine.storage import read_json

NEW_SHARE, KS_DISTANCE, ERROR_RISE = 0.5, 0.1, 1.1
_KS_CRITICAL = 1.63
"""At 1 %, times the root of (n + m) / (n m)."""
_MIN_VALUES = 20
"""Fewer values on either side say nothing."""
_MAX_RECORDS = 200_000
"""Of more records a sample by the hash that their id is."""

_WATCHED: dict[str, tuple[tuple[str, str], ...]] = {
    "clip": (("scores", "clip_score"),),
    "cuts": (
        ("pictures", "short_side"),
        ("pictures", "entropy"),
        ("scores", "caption_quality"),
        ("scores", "clip_score"),
    ),
    "vq": (("tokens", "squared_error"),),
}
"""What each model is used for: table and column."""

Row = dict[str, Any]


def drift(corpus: Corpus, connection: DuckDBPyConnection) -> list[Row]:
    """For each pinned model: share of new records, what has moved, and a sentence that advises.

    A model that was fitted on no table is left out: no record is new to it.
    """
    parts = {part.name: part.num_records for part in corpus.parts}
    total = sum(parts.values())
    found = []
    for name, folder in corpus.models.items():
        fitted_on = read_json(folder / MODEL_FILE)["fitted_on"]
        if not fitted_on:
            continue
        new = parts.keys() - _parts_of(fitted_on)
        num_new = sum(parts[part] for part in new)
        moved = [
            _compare(connection, table, column, new, total)
            for table, column in _WATCHED.get(name, ())
            if new and table in corpus.tables and corpus.files(table)
        ]
        row = {
            "model": name,
            "fitted": folder.name,
            "new_records": num_new,
            "new_share": num_new / total if total else 0.0,
            "measures": [measure for measure in moved if measure is not None],
        }
        found.append({**row, "refit": bool(_reasons(row)), "advice": _advice(row)})
    return found


def ks_distance(first: np.ndarray, second: np.ndarray) -> float:
    """The largest distance between two empirical distributions, (n,) and (m,)."""
    values = np.concatenate([first, second])
    below = [
        np.searchsorted(np.sort(each), values, side="right") / len(each) for each in (first, second)
    ]
    return float(np.abs(below[0] - below[1]).max())


def _parts_of(fitted_on: dict[str, list[str]]) -> set[str]:
    return {PurePosixPath(file).stem for files in fitted_on.values() for file in files}


def _compare(
    connection: DuckDBPyConnection, table: str, column: str, new: Set[str], num_records: int
) -> Row | None:
    """One column over the new parts against the others; None where either has too few values."""
    identity = "image_id" if table == "tokens" else "record_id"
    share = min(1.0, _MAX_RECORDS / max(num_records, 1))
    last = f"{min(int(share * 16**8), 16**8 - 1):08x}"
    kinds = "AND kind = 'original'" if table == "scores" else ""
    columns = connection.execute(
        f"""
        SELECT {column} AS value, part IN (SELECT unnest($new)) AS is_new FROM {table}
        WHERE {column} IS NOT NULL AND {identity}[:8] <= $last {kinds}
        """,
        {"new": sorted(new), "last": last},
    ).fetchnumpy()
    values, is_new = np.asarray(columns["value"]), np.asarray(columns["is_new"], dtype=bool)
    now, before = values[is_new], values[~is_new]
    if min(len(now), len(before)) < _MIN_VALUES:
        return None
    return {
        "column": column,
        "num_before": len(before),
        "num_new": len(now),
        "mean_before": float(before.mean()),
        "mean_new": float(now.mean()),
        "ks_distance": ks_distance(before, now),
    }


def _reasons(row: Row) -> list[str]:
    reasons = []
    if row["new_share"] >= NEW_SHARE:
        reasons.append(f"{row['new_share']:.0%} of the records are new to it")
    for measure in row["measures"]:
        before, now = measure["mean_before"], measure["mean_new"]
        if measure["column"] == "squared_error":
            if now > ERROR_RISE * before:
                reasons.append(f"its squared error rose from {before:.4g} to {now:.4g}")
            continue
        num_before, num_new = measure["num_before"], measure["num_new"]
        chance = _KS_CRITICAL * sqrt((num_before + num_new) / (num_before * num_new))
        if measure["ks_distance"] >= max(KS_DISTANCE, chance):
            reasons.append(
                f"{measure['column']} moved from a mean of {before:.4g} to {now:.4g}"
                f" (KS distance {measure['ks_distance']:.2f})"
            )
    return reasons


def _advice(row: Row) -> str:
    reasons = _reasons(row)
    if reasons:
        return f"`anymix run --refit {row['model']}` looks justified: {'; '.join(reasons)}."
    if row["new_records"]:
        return f"{row['new_share']:.0%} of the records are new to it; nothing speaks for a refit."
    return "It has seen every part of the corpus."
