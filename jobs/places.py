"""Sees that a corpus, its sources and a run do not lie inside each other.

A source reads what lies below its folder: the corpus's own pictures would be its records next time.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path

from jobs.recipe import Recipe
from pipeline.errors import UserError
from pipeline.settings import Settings
from pipeline.sources.row_files import RowFileSettings, split_glob


def check_corpus(recipe: Recipe, root: Path) -> None:
    """See that a corpus can be filled in a folder.

    Raises:
        UserError: naming the source that would read the corpus, or that the corpus holds.
    """
    for source in (*recipe.sources, *recipe.duplicates.against):
        path = _path_of(source)
        if path is None:
            continue
        if _reads(source, root):
            message = (
                f"source {source.name!r} would read the corpus {root} as well: it reads {path}"
            )
            raise UserError(message, "Name a folder outside of it: --corpus DIR.")
        if _lies_in(path, root):
            message = f"source {source.name!r} lies in the corpus {root}: it reads {path}"
            raise UserError(message, "A corpus keeps only what anymix writes; move the source.")


def check_run(recipe: Recipe, root: Path, run: Path) -> None:
    """See that a model can be trained in a folder.

    Args:
        recipe: of the corpus.
        root: the corpus.
        run: the folder.

    Raises:
        UserError: where the run would write into the corpus, or where a source would read it.
    """
    if _lies_in(run, root):
        message = f"the run {run} lies in the corpus {root}"
        raise UserError(message, "A corpus keeps only what `anymix run` writes: --out DIR.")
    for source in recipe.sources:
        if _reads(source, run):
            message = f"source {source.name!r} of the corpus would read the run {run} as well"
            raise UserError(message, "Name a folder outside of it: --out DIR.")


def _path_of(source: Settings) -> Path | None:
    path: Path | None = getattr(source, "path", None)
    return path


def _reads(source: Settings, folder: Path) -> bool:
    """Whether a source would read what is written into a folder."""
    path = _path_of(source)
    if path is None:
        return False
    top, pattern = (path, "**")
    if isinstance(source, RowFileSettings):
        top, glob = split_glob(path)
        if glob is None:
            return False  # one file, which is no folder
        pattern = glob
    if not _lies_in(folder, top):
        return False
    # `*/a.csv` reads in the folders that are one deep; a folder two deep is none of them.
    steps = folder.resolve().relative_to(top.resolve()).parts
    for step, wanted in zip_longest(steps, pattern.split("/")):
        if wanted == "**" or step is None:
            return True
        if wanted is None or not fnmatchcase(step, wanted):
            return False
    return False


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or in it, links followed; a store and a disk hold no other."""
    return type(path) is type(folder) and path.resolve().is_relative_to(folder.resolve())
