"""Trains and evaluates a model on a corpus, and says in words what came out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from jobs.pictures import checked_pictures, gallery_of
from jobs.places import check_run
from jobs.recipe import Recipe, dump_recipe, read_resolved_recipe
from jobs.run import RECIPE_FILE, open_corpus
from jobs.stages import vocabulary_models
from pipeline.engine.corpus import Corpus
from pipeline.engine.lock import holding
from pipeline.engine.machine_cache import local_copy
from pipeline.engine.storage import commit_json, commit_text, read_json, to_path
from pipeline.errors import UserError
from pipeline.sources.shapes import ShapesSettings
from tokenizer_cache.manifest import find_manifest, open_manifest

if TYPE_CHECKING:
    from tokenizer_cache.manifest import Manifest
    from trainer.run import Run

CORPUS_FILE = "corpus.json"
"""Where the run says which corpus it was trained on, for held-out samples and the report."""


def train_model(
    recipe: Recipe,
    corpus_root: Path,
    run: Path,
    *,
    fresh: bool,
    console: Console,
    init: Path | None = None,
) -> None:
    """Train a model on a corpus's shards and evaluate it.

    A run that was interrupted resumes, on the shards that it began with; one that is finished is
    not trained again. Nothing is written before that is settled.

    Args:
        recipe: what to train.
        corpus_root: the corpus.
        run: the run's folder.
        fresh: discard what the run holds, and begin again.
        console: takes what is said.
        init: the run whose weights are the first ones.

    Raises:
        UserError: when the corpus has no shards yet, when the run holds another training, when
            another process trains it, or when its evaluation asks for what is not installed.
    """
    from trainer.evaluate.vqascore import require_vqascore
    from trainer.run import EVALUATION, load_run
    from trainer.train.loop import find_start, train
    from trainer.train.pinned import pin_shards, release_shards

    if ":/" in str(run):  # a URL, whose second slash `Path` has dropped
        raise UserError(f"{run} is on a store", "A run's folder is local: --out DIR.")
    if init is not None and init.resolve() == run.resolve():
        raise UserError(f"--init and --out are both {run}", "A new run has a folder of its own.")
    require_vqascore(recipe.evaluate)  # before the training, and not at its end
    built, corpus = open_corpus(corpus_root)
    check_run(built, corpus.root, run)
    shards = find_shards(corpus)
    with holding(run, is_being="trained"):
        manifest = _shards_of(run, shards, fresh=fresh)
        start = find_start(recipe.train, manifest, run, fresh=fresh, init=init)
        if start.is_done:
            console.print(f"train          nothing has changed: {run} holds this training")
            if start.is_outdated:
                message = "The corpus has other shards now: --fresh or another --out takes them."
                console.print(message, soft_wrap=True)
        else:
            (run / EVALUATION).unlink(missing_ok=True)
            commit_text(run / RECIPE_FILE, dump_recipe(recipe))
            commit_json(run / CORPUS_FILE, {"corpus": str(corpus.root), "shards": shards.name})
            if start.checkpoint is None:
                manifest = pin_shards(manifest, run)
            models = {name: local_copy(corpus.models[name]) for name in vocabulary_models(built)}
            pictures = checked_pictures(corpus, manifest)
            train(recipe.train, manifest, start, models=models, run=run, pictures=pictures)
        if not (run / EVALUATION).exists():
            _judge(load_run(run), manifest, recipe, corpus)
        release_shards(run)
    for line in sentences(read_json(run / EVALUATION)):
        console.print(line, soft_wrap=True)


def evaluate_model(run: Path) -> Mapping[str, Any]:
    """Judge a run again, finished or not, and return what its `evaluation.json` then holds.

    Raises:
        UserError: when the run holds no model, when its corpus has gone or has another vocabulary,
            or when its evaluation asks for what is not installed.
    """
    from trainer.evaluate.vqascore import require_vqascore
    from trainer.run import EVALUATION, load_run

    loaded = load_run(run)
    recipe = read_resolved_recipe(run / RECIPE_FILE)
    require_vqascore(recipe.evaluate)
    corpus = open_corpus(to_path(read_json(run / CORPUS_FILE)["corpus"]))[1]
    _judge(loaded, shards_of_run(loaded), recipe, corpus)
    found: Mapping[str, Any] = read_json(run / EVALUATION)
    return found


def shards_of_run(run: Run) -> Manifest:
    """The shards that a run pins, or those of its corpus.

    Raises:
        UserError: when its corpus has gone or has another vocabulary.
    """
    from trainer.train.pinned import pinned_manifest

    place = read_json(run.folder / CORPUS_FILE)
    folder = to_path(place["corpus"]) / "shards" / place["shards"]
    return pinned_manifest(run.folder) or open_manifest(folder, run.vocabulary.fingerprint)


def sentences(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """What an evaluation found, in words."""
    losses = evaluation["held_out"].get("all", {})
    shown = ", ".join(f"{name} {nats:.3f}" for name, nats in losses.items())
    yield f"Held-out loss in nats per token: {shown}"
    if evaluation["bits_per_pixel"] is not None:
        yield f"Held-out pictures: {evaluation['bits_per_pixel']:.4f} bits per pixel"
    yield evaluation["sentence"]


def find_shards(corpus: Corpus) -> Path:
    """The folder of a corpus's shards.

    Raises:
        UserError: when they have not been written.
    """
    if corpus.shards is None or find_manifest(corpus.shards) is None:
        message = f"{corpus.root} has no shards yet"
        raise UserError(message, "Run `anymix run RECIPE --corpus …` to the end first.")
    return corpus.shards


def _judge(run: Run, manifest: Manifest, recipe: Recipe, corpus: Corpus) -> None:
    """Write the run's `evaluation.json`."""
    from trainer.evaluate.evaluation import evaluate

    shapes = next((each for each in recipe.sources if isinstance(each, ShapesSettings)), None)
    limit = recipe.evaluate.max_retrieved
    evaluate(
        run,
        manifest,
        recipe.evaluate,
        sampling=recipe.sample,
        shapes=shapes,
        gallery=gallery_of(corpus, limit) if run.vq is not None and limit else None,
        pictures=checked_pictures(corpus, manifest),
    )


def _shards_of(run: Path, latest: Path, *, fresh: bool) -> Manifest:
    """The shards that a run resumes on, while it is not finished; else the corpus's."""
    from trainer.train.checkpoint import newest_checkpoint
    from trainer.train.pinned import pinned_manifest

    # What was pinned by a run that was killed before its first checkpoint is pinned again.
    resumes = not fresh and newest_checkpoint(run) is not None
    return (pinned_manifest(run) if resumes else None) or open_manifest(latest)
