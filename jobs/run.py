"""Fills or refreshes a corpus: resolves each step and does what is missing."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path

from jobs.filling import Filling
from jobs.forgetting import finish, take_out_unfinished
from jobs.places import check_corpus
from jobs.progress import Reporter
from jobs.recipe import Recipe, dump_recipe, read_resolved_recipe
from jobs.stages import list_parts, list_sources, part_extras, steps
from pipeline.engine.corpus import Corpus
from pipeline.engine.corpus_step import resolve_corpus_step
from pipeline.engine.events import EVENTS_FILE, EventLog
from pipeline.engine.faults import as_user_error
from pipeline.engine.lock import holding
from pipeline.engine.parts import PARTS, PARTS_FILE, Part, read_parts
from pipeline.engine.stage import CorpusStepSpec, FitSpec, StageSpec, Step
from pipeline.engine.storage import commit_text
from pipeline.engine.tables import DamagedFile, write_table
from pipeline.errors import StarvedError, UserError
from pipeline.ledger.damage import Damage, repair_descriptions
from pipeline.ledger.damage import repair as repair_damage
from pipeline.ledger.losses import losses
from pipeline.ledger.unread import describe_unread, read_unread, remember_unread

RECIPE_FILE = "recipe.yaml"


def fill(
    recipe: Recipe,
    root: Path,
    *,
    until: str | None = None,
    refit: Collection[str] = (),
    repair: bool = False,
    reporter: Reporter,
    parts: Sequence[Part] | None = None,
) -> Corpus:
    """Bring a corpus up to its recipe and return it; what is committed already is not done again.

    Args:
        recipe: what the corpus should be.
        root: the corpus's folder; made where it is missing.
        until: name of the last step to do; None does all.
        refit: names of fitted models to fit anew, on the corpus as it is now.
        repair: look for damaged files first, and have them made again.
        reporter: shows progress.
        parts: the parts that the corpus has; None asks the sources.

    Raises:
        UserError: when another run holds the corpus, when it and a source lie inside each other,
            when `until` or `refit` names no step, or when a part could not be done.
    """
    flow = steps(recipe)
    check_names(flow, until, refit)
    root = root.resolve()
    check_corpus(recipe, root)
    with holding(root):
        take_out_unfinished(root)
        if repair:
            reporter.repaired([*_repair_parts(recipe, root), *_repair(root)])
        if parts is None:
            known = {part.look: part for part in read_parts(root) if part.look}
            listing = list_sources(recipe, known)
            parts = listing.parts
            remember_unread(root, listing.unread)
        corpus = _corpus(recipe, root, parts)
        _remember(recipe, corpus)
        run = f"{time.strftime('%Y%m%dT%H%M%S')}-{socket.gethostname()}-{os.getpid()}"
        log = EventLog(root / EVENTS_FILE, run)
        try:
            with Filling(
                recipe=recipe, corpus=corpus, reporter=reporter, log=log, run=run
            ) as filling:
                for step in flow:
                    filling.do(step, refit=step.name in refit)
                    if step.name == until:
                        break
                filling.finish()
        except Exception as error:
            if isinstance(starved := as_user_error(error), StarvedError):
                _name_losses(starved, corpus)
                raise starved from error
            raise
        finally:
            reporter.unread(describe_unread(read_unread(root)))
        if until is None:
            finish(corpus)
        return corpus


def open_corpus(root: Path) -> tuple[Recipe, Corpus]:
    """A corpus as its own recipe left it, resolved as far as its models have been fitted.

    Raises:
        UserError: when `root` holds no corpus.
    """
    path = root / RECIPE_FILE
    if not path.exists():
        raise UserError(f"{root} is not a corpus: it has no {RECIPE_FILE}", "Run `anymix run`.")
    recipe = read_resolved_recipe(path)
    corpus = _corpus(recipe, root.resolve(), read_parts(root))
    for step in steps(recipe):
        match step:
            case StageSpec():
                corpus.resolve_stage(step, part_extras(step, recipe, corpus))
            case FitSpec():
                if corpus.resolve_fit(step):
                    del corpus.models[step.name]
                    break
            case CorpusStepSpec():
                if resolve_corpus_step(corpus, step) is not None:
                    break
    return recipe, corpus


def check_names(flow: list[Step], until: str | None, refit: Collection[str]) -> None:
    """See that `until` is a step of the flow, and that each name in `refit` is a model's.

    Raises:
        UserError: naming what is there.
    """
    names = [step.name for step in flow]
    if until is not None and until not in names:
        raise UserError(f"there is no stage {until!r}", f"The stages are {', '.join(names)}.")
    models = [step.name for step in flow if isinstance(step, FitSpec)]
    for name in refit:
        if name not in models:
            raise UserError(
                f"there is no fitted model {name!r}", f"The models are {', '.join(models)}."
            )


def _name_losses(starved: StarvedError, corpus: Corpus) -> None:
    """Say which losses have left a fit nothing; its own hint is for a corpus that had nothing."""
    if lost := losses(corpus):
        starved.message = "\n".join([starved.message, *lost])
        starved.hint = "Put right why they were lost, and run the same command again."


def _corpus(recipe: Recipe, root: Path, parts: Sequence[Part]) -> Corpus:
    return Corpus(root=root, recipe=recipe.model_dump(mode="json"), parts=parts)


def _repair_parts(recipe: Recipe, root: Path) -> list[Damage]:
    """Ask the sources for the parts again, where the list of the last run is damaged."""
    path = root / PARTS_FILE
    try:
        read_parts(root)
    except DamagedFile as damaged:
        path.unlink()
        _remember(recipe, _corpus(recipe, root, list_parts(recipe, {})))
        return [Damage(path=path, kind="table", what=damaged.message, remove=(path,))]
    return []


def _repair(root: Path) -> list[Damage]:
    return [*repair_descriptions(root), *repair_damage(open_corpus(root)[1])]


def _remember(recipe: Recipe, corpus: Corpus) -> None:
    """Write the resolved recipe and the parts, where they have changed."""
    path, text = corpus.root / RECIPE_FILE, dump_recipe(recipe)
    if not path.exists() or path.read_bytes() != text.encode():
        commit_text(path, text)
    if read_parts(corpus.root) != list(corpus.parts):
        rows = [{**asdict(part), "slice": json.dumps(part.slice)} for part in corpus.parts]
        write_table(corpus.root / PARTS_FILE, rows, PARTS)
