"""What filtering is worth: models trained on a dirty corpus, on what is kept of it, on a draw.

    python -m tests.benchmarks.worth [--json] [--quick]

DataComp's protocol (Gadre et al., arXiv 2304.14108, section 3) in miniature: the training is fixed,
down to its number of tokens, and only the selection changes. The pictures are coloured shapes, the
one corpus at hand whose captions a model learns in a minute on 2 cores; a share of the captions is
given to other pictures. One corpus is filled, so that tokenizers and scores are the same for all;
then `select` is changed and the model trained, each time with three seeds. All models are judged on
the same held-out pictures, of which every caption is right.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from scipy import stats

from jobs.run import open_corpus
from jobs.training import find_shards, train_model
from tests.benchmarks.dirty import (
    clean_pairs,
    count_selected,
    run_recipe,
    with_swapped,
    write_pairs,
)
from tests.benchmarks.result import Result, show
from tokenizer_cache.manifest import open_manifest
from trainer.evaluate.likelihood import Pair, derangement, pairs_of, picture_nats
from trainer.run import load_run

SHARE = 0.3
"""Of the captions are swapped; none of the held-out ones."""
SEEDS = (0, 1, 2)
_FILTERED, _ALL, _RANDOM = "filtered", "all pairs", "as many at random"
_FILTER = {"rules": {"clip_score": {"false_accept": 0.05}}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large corpus and training are; the last three are sections of the recipe."""

    num_records: int
    clip: Mapping[str, Any]
    image_tokenizer: Mapping[str, Any]
    train: Mapping[str, Any]


_MODEL = {
    "mix": {"text": 0, "image": 1, "mixed": 0},
    "model": {"layers": 3, "width": 128, "heads": 4},
    "seq_len": 128,
    "tokens_per_step": 1024,
    "evaluate_every_steps": 10_000,
    "checkpoint_every_steps": 10_000,
}
FULL = Size(
    num_records=8_000,
    clip={"image_size": 32, "steps": 120},
    image_tokenizer={
        "image_size": 32,
        "stride": 8,
        "codebook_size": 256,
        "width": 64,
        "steps": 800,
    },
    train={**_MODEL, "steps": 300},
)
QUICK = Size(
    num_records=1_500,
    clip={"image_size": 32, "steps": 40},
    image_tokenizer={"image_size": 32, "stride": 8, "codebook_size": 64, "width": 32, "steps": 100},
    train={**_MODEL, "steps": 20},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The models of one selection on the n held-out pictures, for each of S seeds.

    Attributes:
        own: (S, n) nats of a picture's codes after its own caption.
        shuffled: (S, n) the same after another picture's.
        num_pairs: how many pairs they were trained on.
        share_wrong: the share of them with a wrong caption.
    """

    own: np.ndarray
    shuffled: np.ndarray
    num_pairs: int
    share_wrong: float

    @property
    def gain(self) -> np.ndarray:
        """(S, n) how much likelier the own caption makes a picture."""
        return self.shuffled - self.own


def measure(size: Size) -> Iterator[Result]:
    """By how much the filtered corpus's models are better than the others."""
    with tempfile.TemporaryDirectory(prefix="anymix-worth-") as folder:
        judged = _judge_all(Path(folder), size)
    filtered = judged[_FILTERED]
    for name, other in judged.items():
        told = f"{other.num_pairs:,} pairs, {100 * other.share_wrong:.1f} % of them wrong"
        for what, values in (("gain by the own caption", other.gain), ("NLL", other.own)):
            mean, low, high = interval(values)
            yield Result(
                name=f"{name}: {what}", value=round(mean, 3), unit="nats a picture",
                rival=f"{low:.3f} to {high:.3f}; {told}",
            )  # fmt: skip
    for name in (_ALL, _RANDOM):
        other = judged[name]
        for what, better in (
            ("gain by the own caption", filtered.gain - other.gain),
            ("NLL", other.own - filtered.own),
        ):
            mean, low, high = interval(better)
            by_seed = ", ".join(f"{seed:.3f}" for seed in better.mean(axis=1))
            yield Result(
                name=f"filtered better than {name} by {what}: lower end", value=round(low, 3),
                unit="nats a picture", goal="> 0",
                rival=f"{mean:.3f} ({low:.3f} to {high:.3f}); by seed {by_seed}",
            )  # fmt: skip


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """The mean over seeds and records with its 95 % interval.

    Both are drawn at random, and crossed: the variances of the two kinds of means add up, which
    counts what is peculiar to a seed's record twice and so errs on the safe side (Owen, The
    Pigeonhole Bootstrap, arXiv 0712.1111). Student's t has Satterthwaite's degrees of freedom.

    Args:
        values: (S, n), of at least two seeds.
    """
    num_seeds, num_records = values.shape
    of_seeds = values.mean(axis=1).var(ddof=1) / num_seeds
    of_records = values.mean(axis=0).var(ddof=1) / num_records
    variance = of_seeds + of_records
    freedom = variance**2 / (of_seeds**2 / (num_seeds - 1) + of_records**2 / (num_records - 1))
    margin = float(stats.t.ppf(0.975, freedom) * np.sqrt(variance))
    mean = float(values.mean())
    return mean, mean - margin, mean + margin


def _judge_all(folder: Path, size: Size) -> dict[str, Judged]:
    """Fill the corpus, and train and judge by each selection."""
    source = {"kind": "shapes", "num_records": size.num_records}
    dirty = with_swapped(clean_pairs(source, folder / "clean", 0.05), SHARE, seed=0)
    is_wrong = np.asarray([pair.is_wrong for pair in dirty])
    recipe = {
        "sources": [write_pairs(dirty, folder / "dirty.parquet")],
        "score": {"clip": size.clip},
        "image_tokenizer": size.image_tokenizer,
        "train": size.train,
        "evaluate": {"max_pairs": 2, "max_rows": 1, "num_resamples": 100},
    }
    root = folder / "corpus"
    held_out: list[Pair] = []
    judged = {}

    def judge(name: str, select: Mapping[str, Any]) -> None:
        select = {"mixed_share": 0, "drop_duplicates": False, **select}
        corpus = run_recipe(recipe | {"select": select}, root)
        if not held_out:  # while none is left out
            shards = open_manifest(find_shards(corpus))
            held_out.extend(pairs_of(shards, "validation", len(dirty)))
        kept = count_selected(corpus, "dirty", len(dirty), split="train") > 0
        own, shuffled = zip(
            *(_nats(root, folder / f"{name} {seed}", seed, held_out) for seed in SEEDS),
            strict=True,
        )
        judged[name] = Judged(
            own=np.stack(own), shuffled=np.stack(shuffled), num_pairs=int(kept.sum()),
            share_wrong=float(is_wrong[kept].mean()),
        )  # fmt: skip

    judge(_ALL, {})
    judge(_FILTERED, _FILTER)
    share = judged[_FILTERED].num_pairs / judged[_ALL].num_pairs
    judge(_RANDOM, {"top": {"score": "chance", "share": share}})
    return judged


def _nats(
    root: Path, folder: Path, seed: int, held_out: Sequence[Pair]
) -> tuple[np.ndarray, np.ndarray]:
    """Train as `anymix train` does: (n,) nats each of pictures after own and other captions."""
    recipe, _ = open_corpus(root)
    seeded = recipe.train.model_copy(update={"seed": seed})
    train_model(
        recipe.model_copy(update={"train": seeded}), root, folder, fresh=False,
        console=Console(file=sys.stderr),
    )  # fmt: skip
    run = load_run(folder)
    texts, codes = [pair.text for pair in held_out], [pair.codes for pair in held_out]
    others = derangement(texts, np.random.default_rng(0))
    assert others is not None, "one caption has more than half of the held-out pairs"
    return picture_nats(run, texts, codes), picture_nats(run, [texts[n] for n in others], codes)


def main() -> None:
    """Measure and print; exit code 1 when filtering is not shown to be worth it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    parser.add_argument("--quick", action="store_true", help="too small to show anything")
    chosen = parser.parse_args()
    with redirect_stdout(sys.stderr):
        results = list(measure(QUICK if chosen.quick else FULL))
    sys.exit(not show(results, as_json=chosen.json))


if __name__ == "__main__":
    main()
