"""What stands in a corpus now: the committed files that its recipe refers to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engine.parts import Part


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusView:
    """The live files of a corpus, as the recipe and the parts resolve to them.

    A folder of a table also holds parts of earlier runs; a view names only those of now, and only
    those that are committed.

    Attributes:
        root: the corpus's folder.
        recipe: the resolved recipe, as JSON.
        parts: all parts of the sources.
        tables: for each table, the committed files of its live parts, in the order of `parts`.
        rejects: for each stage, the committed files of its rejects, in the order of `parts`.
        models: folders of the fitted models, by name; only those that are there.
        shards: the folder of the shards, or None before they are written.
    """

    root: Path
    recipe: Mapping[str, Any]
    parts: Sequence[Part]
    tables: Mapping[str, Sequence[Path]]
    rejects: Mapping[str, Sequence[Path]]
    models: Mapping[str, Path]
    shards: Path | None
