"""Trains and evaluates a model on a corpus, and says in words what came out."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from jobs.places import check_run
from jobs.recipe import Recipe, dump_recipe
from jobs.run import RECIPE_FILE, open_corpus
from jobs.stages import vocabulary_models
from pipeline.engine.corpus import Corpus
from pipeline.engine.storage import commit_json, commit_text, local_copy, read_json
from pipeline.errors import UserError
from tokenizer_cache.manifest import find_manifest

CORPUS_FILE = "corpus.json"
"""Where the run says which corpus it was trained on, for held-out samples and the report."""


def train_model(
    recipe: Recipe, corpus_root: Path, run: Path, *, resume: bool, console: Console
) -> None:
    """Train a model on a corpus's shards and evaluate it; a finished training is not done again.

    Raises:
        UserError: when the corpus has no shards yet, or the run is of another training.
    """
    from trainer.evaluate import evaluate
    from trainer.run import EVALUATION, load_run
    from trainer.train import is_trained, train

    if ":/" in str(run):  # a URL, whose second slash `Path` has dropped
        raise UserError(f"{run} is on a store", "A run's folder is local: --out DIR.")
    built, corpus = open_corpus(corpus_root)
    check_run(built, corpus.root, run)
    shards = find_shards(corpus)
    run.mkdir(parents=True, exist_ok=True)
    commit_text(run / RECIPE_FILE, dump_recipe(recipe))
    commit_json(run / CORPUS_FILE, {"corpus": str(corpus.root), "shards": shards.name})
    if is_trained(recipe.train, shards=shards, run=run):
        console.print(f"train          nothing has changed: {run} holds this training")
    else:
        (run / EVALUATION).unlink(missing_ok=True)
        models = {name: local_copy(corpus.models[name]) for name in vocabulary_models(built)}
        train(recipe.train, shards=shards, models=models, run=run, resume=resume)
    if not (run / EVALUATION).exists():
        evaluate(load_run(run), shards=shards, settings=recipe.evaluate)
    found = read_json(run / EVALUATION)
    losses = found["held_out"].get("all", {})
    shown = ", ".join(f"{name} {nats:.3f}" for name, nats in losses.items())
    console.print(f"Held-out loss in nats per token: {shown}")
    if found["bits_per_pixel"] is not None:
        console.print(f"Held-out pictures: {found['bits_per_pixel']:.4f} bits per pixel")
    console.print(found["sentence"], soft_wrap=True)


def find_shards(corpus: Corpus) -> Path:
    """The folder of a corpus's shards.

    Raises:
        UserError: when they have not been written.
    """
    if corpus.shards is None or find_manifest(corpus.shards) is None:
        message = f"{corpus.root} has no shards yet"
        raise UserError(message, "Run `anymix run RECIPE --corpus …` to the end first.")
    return corpus.shards
