"""What the commands share: their arguments, and where they write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from pipeline.engine.storage import to_path

ERRORS = Console(stderr=True, highlight=False)
"""Takes all that is said; results go to stdout."""

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")]
CorpusPath = Annotated[
    Path, typer.Argument(metavar="CORPUS", parser=to_path, help="The corpus: a folder or a URL.")
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained model.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one line of the recipe."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def say(text: str) -> None:
    """A line of the result, on stdout."""
    typer.echo(text)


def say_json(value: Any) -> None:  # noqa: ANN401 - whatever JSON can say
    """The result as JSON, on stdout."""
    say(json.dumps(value, indent=2, ensure_ascii=False))
