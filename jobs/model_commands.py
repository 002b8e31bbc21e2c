"""The commands about a model: `anymix train`, `eval`, `eval export` and `sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from jobs.arguments import ERRORS, AsJson, Changes, RecipePath, RunPath, say, say_json
from pipeline.engine.storage import to_path


def train(
    recipe: RecipePath,
    corpus: Annotated[
        Path, typer.Option(parser=to_path, metavar="PATH", help="The corpus to train on.")
    ],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder of the trained model.")],
    init: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Begin with its weights.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard RUN and begin again.")] = False,
    changes: Changes = None,
) -> None:
    """Train a decoder on a corpus's shards, or resume, and evaluate it on held-out records."""
    from jobs.recipe import load_recipe
    from jobs.training import train_model

    loaded = load_recipe(recipe, changes or [])
    train_model(loaded, corpus, out, fresh=fresh, console=ERRORS, init=init)


def evaluate(run_folder: RunPath, as_json: AsJson = False) -> None:
    """Judge a trained model, finished or not: losses, use of its texts, what it draws."""
    from jobs.training import evaluate_model, sentences

    found = evaluate_model(run_folder)
    if as_json:
        say_json(found)
    else:
        for line in sentences(found):
            say(line)


def export(
    run_folder: RunPath,
    judge: Annotated[
        str, typer.Option("--for", metavar="JUDGE", help="geneval2, wise, oneig or dpg.")
    ],
    prompts: Annotated[
        Path, typer.Option(metavar="PATH", help="The prompts, from the judge's own repository.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to fill.")],
) -> None:
    """Draw the prompts of a judge that runs elsewhere, in its layout; only what is missing."""
    from jobs.exporting import export_for

    for line in export_for(run_folder, judge, prompts, out):
        say(line)


class _RunOrExport(TyperGroup):
    """Takes what is no subcommand for a RUN, so that `anymix eval RUN` needs none.

    A run whose folder is called `export` is `./export`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's own
        if args[:1] not in (["export"], ["--help"]):
            args = ["RUN", *args]
        return super().parse_args(ctx, args)


evaluations = typer.Typer(cls=_RunOrExport, help="Judge a model, or export pictures for a judge.")
evaluations.command(name="RUN")(evaluate)
evaluations.command()(export)


def sample(
    run_folder: RunPath,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the results.")],
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT…", help="Texts to draw, pictures to read.")
    ] = None,
    negative: Annotated[str, typer.Option(metavar="TEXT", help="What is not to be shown.")] = "",
    picture: Annotated[
        Path | None, typer.Option(metavar="PICTURE", help="A picture to draw around.")
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(
            metavar="L,T,W,H",
            help="Draw this part of PICTURE again: left, top, width and height in percent.",
        ),
    ] = None,
    sound: Annotated[bool, typer.Option("--sound", help="Make sounds of the texts.")] = False,
) -> None:
    """Make pictures or sounds of texts, describe pictures; without a prompt, a sheet of records."""
    from jobs.sampling import Request, sample_run

    request = Request(negative=negative, picture=picture, box=box, is_sound=sound)
    for line in sample_run(run_folder, prompts or [], out, request):
        say(line)
