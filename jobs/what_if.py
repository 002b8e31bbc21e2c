"""Looks at what another selection would keep and lose, without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.recipe import load_recipe
from jobs.run import RECIPE_FILE, open_corpus
from jobs.stages import steps
from pipeline.engine.stage import FitSpec
from pipeline.errors import UserError
from pipeline.selection.cuts import Cuts, cuts_settings, read_cuts
from pipeline.selection.fit import find_cuts
from pipeline.selection.sentences import sentences
from pipeline.selection.settings import SelectSettings
from pipeline.selection.what_if import compare


def what_if(root: Path, changes: Sequence[str]) -> dict[str, Any]:
    """What `anymix run` with these changes would select, beside what is selected now, as JSON.

    Args:
        root: a corpus that is filled at least up to its selection.
        changes: `key=value` with dotted keys of the section `select`; the name of a score stands
            for its rule (`clip_score.quantile=0.3`).

    Raises:
        UserError: when a key or value is wrong, naming what is allowed, or when nothing has been
            selected yet.
    """
    before, corpus = open_corpus(root)
    recipe = load_recipe(root / RECIPE_FILE, [_key_of_recipe(change) for change in changes])
    if "selection" not in corpus.tables or len(corpus.files("selection")) < len(corpus.parts):
        raise UserError(
            f"{root} is not selected to its end: there is nothing to compare with",
            "Run `anymix run RECIPE --until select`.",
        )
    connection = corpus.connect()
    (spec,) = (step for step in steps(recipe) if step.name == "cuts" and isinstance(step, FitSpec))
    other = replace(corpus, models=dict(corpus.models))
    # Cuts that an earlier run has pinned are those that the next one would take.
    is_new = other.resolve_fit(spec)
    cuts = (
        find_cuts(connection, cuts_settings(recipe.select))
        if is_new
        else read_cuts(other.models["cuts"])
    )
    return {
        "changes": list(changes),
        "limits": _limits(before.select, read_cuts(corpus.models["cuts"])),
        "limits_would_be": _limits(recipe.select, cuts),
        **compare(connection, recipe.select, cuts),
    }


def _key_of_recipe(change: str) -> str:
    """A change as the recipe has it."""
    section, _, _ = change.partition("=")[0].partition(".")
    if section in SelectSettings.model_fields:
        return f"select.{change}"
    return f"select.rules.{change}"


def _limits(settings: SelectSettings, cuts: Cuts) -> list[str]:
    return [f"{each.what}: {each.keeps}" for each in sentences(settings, cuts)]
