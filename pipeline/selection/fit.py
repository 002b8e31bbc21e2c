"""Finds the cuts of a selection in a corpus, and calibrates the CLIP score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from pipeline.calibration import (
    CALIBRATION_FILE,
    calibrate,
    false_accept_cut,
    shuffled_scores,
)
from pipeline.engine.stage import FitInputs, Progress
from pipeline.engine.storage import commit_json
from pipeline.engine.tables import connect
from pipeline.selection.cuts import (
    CUTS_FILE,
    Cut,
    Cuts,
    CutsSettings,
    Limit,
    Quantile,
    false_accept_name,
    to_json,
    top_name,
)
from pipeline.selection.faults import fault_sql, refusal_sql, subjects
from pipeline.selection.settings import CHANCE, SelectSettings, Top
from pipeline.selection.texts import columns_of, texts_sql


def fit_cuts(settings: CutsSettings, inputs: FitInputs, folder: Path) -> Iterator[Progress]:
    """Turn what is said of the whole corpus into numbers, and calibrate the CLIP score.

    Writes `cuts.json` (see `cuts.read_cuts`) and `calibration.json` (see `calibration.calibrate`).
    """
    connection = connect(inputs.tables)
    commit_json(folder / CUTS_FILE, to_json(find_cuts(connection, settings)))
    commit_json(folder / CALIBRATION_FILE, calibrate(connection, settings.false_accept))
    yield Progress(done=1, total=1)


def find_cuts(connection: DuckDBPyConnection, settings: CutsSettings) -> Cuts:
    """The cuts over the tables of a connection."""
    cuts = {quantile.name: _cut_quantile(connection, quantile) for quantile in settings.quantiles}
    for share in settings.false_accepts:
        limit = Limit(value=false_accept_cut(shuffled_scores(connection), share).value)
        cuts[false_accept_name(share)] = Cut(whole=limit)
    if settings.top is not None:
        columns = columns_of(settings.top)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE texts AS {texts_sql(columns)}")
        for number, top in enumerate(settings.top.top):
            before = settings.top.model_copy(update={"top": settings.top.top[:number]})
            cuts[top_name(number)] = _cut_top(connection, top, before, cuts)
    return cuts


def _cut_quantile(connection: DuckDBPyConnection, quantile: Quantile) -> Cut:
    score, within = quantile.score, quantile.within
    texts = texts_sql([score, *([within] if within else [])])
    # Of captions, but where texts in a style are compared with each other.
    subjects = "style IS NOT NULL" if within == "style" else "is_caption"
    return _cut(
        (name, value, 0.0)
        for name, value in connection.sql(
            f"""
            SELECT {within or "NULL"} AS name, quantile_cont({score}, {quantile.share}) AS value
            FROM ({texts}) WHERE {subjects} AND {score} IS NOT NULL
            GROUP BY {f"GROUPING SETS (({within}), ())" if within else "()"} ORDER BY name
            """
        ).fetchall()
    )


def _cut_top(connection: DuckDBPyConnection, top: Top, before: SelectSettings, cuts: Cuts) -> Cut:
    """The last record that stays of those that nothing before has left out."""
    size = f"{top.most}" if top.most is not None else f"greatest(1, round({top.share!r} * num))"
    return _cut(
        connection.sql(
            f"""
            WITH best AS (
                SELECT {top.within or "NULL"} AS name, record_id, max({top.score}) AS value,
                    any_value({CHANCE}) AS chance
                FROM texts
                WHERE {subjects(top)} AND {top.score} IS NOT NULL
                    AND {refusal_sql(before)} IS NULL AND {fault_sql(before, cuts)} IS NULL
                GROUP BY ALL
            ), grouped AS (
                FROM best UNION ALL SELECT NULL, * EXCLUDE (name) FROM best WHERE name IS NOT NULL
            ), ranked AS (
                SELECT name, value, chance, count(*) OVER (PARTITION BY name) AS num,
                    row_number() OVER (PARTITION BY name ORDER BY value DESC, chance DESC) AS place
                FROM grouped
            )
            SELECT name, CASE WHEN num > {size} THEN value END, chance FROM ranked
            WHERE place = least(num, {size}) ORDER BY name
            """
        ).fetchall()
    )


def _cut(rows: Iterable[tuple[Any, Any, Any]]) -> Cut:
    limits = {name: Limit(value=value, chance=chance) for name, value, chance in rows}
    return Cut(whole=limits.pop(None, Limit()), groups=limits)
