"""A new threshold over scored records: how long the run takes, and what it would do.

The corpus is made of Arrow tables as the stages write them (their pictures and models are left
out, which a selection does not read); deduplicating it and selecting from it the first
time is the run's own work. The commands are what a person types, Python's start included.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from jobs.recipe import Recipe, load_recipe
from jobs.run import open_corpus
from jobs.stages import list_parts, part_extras, steps
from pipeline.engine.corpus import MODEL_FILE, Corpus
from pipeline.engine.parts import Part, record_id
from pipeline.engine.schemas import REJECTS
from pipeline.engine.stage import FitSpec, StageSpec
from pipeline.engine.storage import commit_json
from pipeline.engine.tables import write_table
from tests.benchmarks.result import Result, spread

ROOT = Path(__file__).parents[2]
_RECIPE = """
name: recut
sources:
  - {{kind: shapes, name: a, num_records: {half}}}
  - {{kind: shapes, name: b, num_records: {half}, seed: 1}}
ingest: {{rows_per_part: {rows_per_part}}}
select:
  rules: {{clip_score: {{quantile: 0.1}}}}
"""


def measure(num_records: int, rows_per_part: int) -> Iterator[Result]:
    """A new quantile, a share of each source with a fixed limit, and a look at what it would do."""
    with tempfile.TemporaryDirectory(prefix="anymix-recut-") as folder:
        recipe, corpus = Path(folder) / "recipe.yaml", Path(folder) / "corpus"
        recipe.write_text(_RECIPE.format(half=num_records // 2, rows_per_part=rows_per_part))
        num_parts = write_corpus(load_recipe(recipe), corpus)
        _anymix("run", recipe, "--corpus", corpus, "--until", "select")
        what = f"{num_records:,} records in {num_parts} parts"
        bare = [_read_all(corpus, quantile) for quantile in (0.2, 0.3, 0.4)]
        new = [
            _anymix("run", recipe, "--corpus", corpus, "--until", "select", "--set",
                    f"select.rules.clip_score.quantile={quantile}")
            for quantile in (0.2, 0.3, 0.4)
        ]  # fmt: skip
        yield Result(
            name=f"a new quantile over {what}", value=round(np.median(new), 2), unit="s",
            goal="< 10", rival=f"three quantiles: {spread(new)} s; "
            f"pandas over all scores, ids written: {spread(bare)} s",
        )  # fmt: skip
        top = _anymix(
            "run", recipe, "--corpus", corpus, "--until", "select",
            "--set", "select.rules.entropy.min=1",
            "--set", "select.top={score: clip_score, share: 0.3, within: source}",
        )  # fmt: skip
        yield Result(
            name=f"the best 30 % of each source over {what}", value=round(top, 2), unit="s",
            goal="< 10",
        )  # fmt: skip
        look = [
            _anymix("select", corpus, "--json", "--what-if", f"clip_score.quantile={quantile}")
            for quantile in (0.5, 0.6, 0.7)
        ]
        yield Result(
            name=f"--what-if over {what}", value=round(np.median(look), 2), unit="s",
            goal="< 10", rival=f"three quantiles: {spread(look)} s",
        )  # fmt: skip


def write_corpus(recipe: Recipe, root: Path) -> int:
    """Commit the tables that a selection reads as if all stages above it had been run.

    Returns:
        The number of parts.
    """
    corpus = Corpus(root=root, recipe=recipe.model_dump(mode="json"), parts=list_parts(recipe, {}))
    parts = {part.name: part for part in corpus.parts}
    for step in steps(recipe):
        match step:
            case StageSpec():
                for task in corpus.resolve_stage(step, part_extras(step, recipe, corpus)):
                    rows = _rows(step.writes, step.schema, parts[task.work.part])
                    write_table(task.rejects, [], REJECTS)
                    write_table(task.output, rows, step.schema)
            case FitSpec():
                corpus.resolve_fit(step)
                description = {"name": step.name, "content": "none", "fitted_on": {}}
                commit_json(corpus.models[step.name] / MODEL_FILE, description)
            case _:
                return len(parts)  # from here on the run does it
    return len(parts)


def _rows(table: str, schema: pa.Schema, part: Part) -> pa.Table:
    """One row a record, with the columns that a selection looks at, drawn at random."""
    if table not in {"records", "pictures", "scores"}:
        return schema.empty_table()
    count, start = part.num_records, part.slice["start"]
    chance = np.random.default_rng([part.slice["seed"], start])
    keys = [f"{part.slice['seed']}:{part.slice['size']}:{start + row:09d}" for row in range(count)]
    ids = [record_id(part.source, key) for key in keys]
    known = {
        "record_id": ids,
        "image_id": [each * 4 for each in ids],
        "source": [part.source] * count,
        "key": keys,
        "caption": [f"a picture with the number {key}" for key in keys],
        "split": ["train"] * count,
        "variant_id": ["original"] * count,
        "kind": ["original"] * count,
        "pixel_hash": ids,
        "entropy": chance.uniform(0, 8, count).astype(np.float32),
        "short_side": chance.uniform(64, 1024, count).astype(np.float32),
        "aspect_ratio": chance.uniform(1, 2, count).astype(np.float32),
        "caption_quality": chance.choice([1, 0.8], count, p=[0.9, 0.1]).astype(np.float32),
        "clip_score": chance.normal(0.25, 0.05, count).astype(np.float32),
        "clip_score_shuffled": chance.normal(0.1, 0.05, count).astype(np.float32),
    }
    return pa.table([_column(field, known, count) for field in schema], schema=schema)


def _column(field: pa.Field, known: Mapping[str, Any], count: int) -> pa.Array:
    if field.name in known:
        return pa.array(known[field.name], field.type)
    if field.nullable:
        return pa.nulls(count, field.type)
    return pa.array([[] if pa.types.is_list(field.type) else ""] * count, field.type)


def _read_all(root: Path, quantile: float) -> float:
    """The threshold as DataComp's baselines apply it: all scores into memory, the ids written."""
    files = open_corpus(root)[1].files("scores")
    started = time.monotonic()
    scores = pd.read_parquet(files, columns=["record_id", "clip_score"])
    kept = scores.record_id[scores.clip_score >= scores.clip_score.quantile(quantile)]
    np.save(root / "kept.npy", kept.to_numpy(dtype="U16"))
    return time.monotonic() - started


def _anymix(*arguments: str | Path) -> float:
    """How long a command takes, in seconds."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return time.monotonic() - started
