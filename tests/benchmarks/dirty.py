"""Corpora of which is known which captions are wrong, filled through the real pipeline."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from jobs.progress import Reporter
from jobs.recipe import Recipe
from jobs.run import fill
from pipeline.engine.corpus import Corpus
from trainer.evaluate.likelihood import derangement

NUMBER = "split_part(key, '#', 2)::BIGINT"
"""In SQL, the number of a record among the pairs that `write_pairs` has written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A picture with its caption.

    Attributes:
        image: its bytes.
        caption: what the corpus says.
        is_wrong: whether that is another picture's caption.
        split: `train` or `validation`, as ingest has put the picture.
    """

    image: bytes
    caption: str
    is_wrong: bool = False
    split: str


def run_recipe(recipe: Mapping[str, object], root: Path, until: str | None = None) -> Corpus:
    """Fill a corpus as `anymix run` does with a recipe, in this process."""
    content = {"name": root.name, "run": {"num_workers": 0}, **recipe}
    reporter = Reporter(Console(file=sys.stderr, highlight=False))
    return fill(Recipe.model_validate(content), root, until=until, reporter=reporter)


def clean_pairs(source: Mapping[str, object], root: Path, validation_share: float) -> list[Pair]:
    """The pairs of a source as ingest takes them, one for each different picture."""
    recipe = {"sources": [source], "ingest": {"validation_share": validation_share}}
    corpus = run_recipe(recipe, root, until="ingest")
    rows = corpus.query(
        "SELECT first(image ORDER BY key), first(caption ORDER BY key), any_value(split)"
        " FROM records GROUP BY image_id ORDER BY min(key)"
    ).fetchall()
    return [Pair(image=image, caption=caption, split=split) for image, caption, split in rows]


def with_swapped(pairs: Sequence[Pair], share: float, seed: int) -> list[Pair]:
    """The pairs, with a share of the captions of the train split given to each other."""
    rng = np.random.default_rng(seed)
    places = [place for place, pair in enumerate(pairs) if pair.split == "train"]
    chosen = rng.choice(places, size=round(share * len(places)), replace=False).tolist()
    others = other_captions([pairs[place] for place in chosen], rng)
    swapped = dict(zip(chosen, others, strict=True))
    return [
        replace(pair, caption=swapped[place], is_wrong=True) if place in swapped else pair
        for place, pair in enumerate(pairs)
    ]


def other_captions(pairs: Sequence[Pair], rng: np.random.Generator) -> list[str]:
    """For each pair another pair's caption, with another text."""
    captions = [pair.caption for pair in pairs]
    others = derangement(captions, rng)
    assert others is not None, "one caption has more than half of the pairs"
    return [captions[other] for other in others]


def write_pairs(
    pairs: Sequence[Pair], path: Path, more: Mapping[str, Sequence[str | None]] | None = None
) -> dict[str, object]:
    """Write pairs to a Parquet file; returns the recipe's source that reads it.

    Args:
        pairs: a record's key is `FILE#NUMBER`, which `NUMBER` reads.
        path: the file; its stem is the source's name.
        more: further captions, by their column.
    """
    rows = {
        "pair": range(len(pairs)),
        "image": [pair.image for pair in pairs],
        "caption": [pair.caption for pair in pairs],
    }
    more = more or {}
    pq.write_table(pa.table({**rows, **more}), path)
    return {
        "kind": "table", "name": path.stem, "path": str(path), "key_column": "pair",
        "image_column": "image", "caption_columns": ["caption", *more],
    }  # fmt: skip


def count_selected(
    corpus: Corpus, source: str, num_pairs: int, split: str | None = None
) -> np.ndarray:
    """How many captions of each of a source's pairs are selected: (N,) int64."""
    rows = corpus.query(
        f"SELECT {NUMBER} AS number FROM selection JOIN records USING (record_id)"
        f" WHERE source = '{source}'" + (f" AND records.split = '{split}'" if split else "")
    ).fetchnumpy()
    return np.bincount(rows["number"], minlength=num_pairs)
