"""Writes pictures that a trained model draws for judges whose models run elsewhere."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from jobs.sampling import recipe_of
from pipeline.engine.lock import holding
from pipeline.errors import UserError
from pipeline.progress import working


def export_for(run_folder: Path, name: str, prompts_file: Path, out: Path) -> Iterator[str]:
    """Draw a judge's prompts as the run's recipe says, in the judge's layout; yields lines.

    What a stopped export has drawn stays, and the same command draws the rest.

    Args:
        run_folder: a trained model.
        name: of the judge, as in `trainer.evaluate.judges.JUDGES`.
        prompts_file: its prompts.
        out: the folder to fill.

    Raises:
        UserError: when there is no such judge or model, when the prompts are not the judge's, or
            when the folder holds other pictures.
    """
    from trainer.evaluate.judges import (
        JUDGES,
        claim,
        export_pictures,
        num_cut,
        read_prompts,
        what_decides,
    )
    from trainer.run import load_run

    judge = JUDGES.get(name)
    if judge is None:
        raise UserError(f"--for {name} is no judge", f"Give one of {', '.join(JUDGES)}.")
    settings = recipe_of(run_folder).sample
    model = run_folder.resolve().name
    prompts = read_prompts(judge, prompts_file, model)
    run = load_run(run_folder)
    size = run.images.image_size
    with holding(out):
        claim(out, what_decides(run, name, prompts_file, settings))
        with working("draw", "pictures") as show:
            for num_there in export_pictures(run, judge, prompts, out, settings):
                show(num_there, len(prompts), "")
    each = f", {judge.side**2} drawings in each" if judge.side > 1 else ""
    yield f"{len(prompts)} pictures for {judge.title}{each}: {out}"
    if cut := num_cut(run, prompts):
        yield (
            f"{cut} of the prompts have more than {run.settings.caption_max_tokens} tokens "
            "(train.caption_max_tokens); the model was given the first ones alone."
        )
    command = judge.command.format(
        out=shlex.quote(str(out.resolve())), model=shlex.quote(model), size=size
    )
    yield f"In a checkout of https://github.com/{judge.repository}: {command}"
