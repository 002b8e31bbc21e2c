"""Draws pictures from texts and describes pictures with a trained model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from jobs.held_out import held_out_records
from jobs.recipe import Recipe, read_resolved_recipe
from jobs.run import RECIPE_FILE, open_corpus
from jobs.training import CORPUS_FILE
from pipeline import images
from pipeline.engine.storage import commit_json, committing, read_json, to_path
from pipeline.errors import UserError

SHEET_FILE = "sheet.png"
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"}


def sample_prompts(run_folder: Path, prompts: Sequence[str], out: Path) -> Iterator[str]:
    """Draw each text, describe each picture; yields a line for each result.

    Args:
        run_folder: a trained model.
        prompts: texts, or paths of pictures.
        out: the folder to fill: a PNG for each text, and `captions.json` for the pictures.

    Raises:
        UserError: when a prompt names a picture that is not there or cannot be read.
    """
    from trainer.generate.sample import describe, draw
    from trainer.run import load_run

    paths = [prompt for prompt in prompts if Path(prompt).suffix.lower() in _PICTURES]
    texts = [prompt for prompt in prompts if prompt not in paths]
    pictures = [_read_picture(Path(path)) for path in paths]
    settings = _recipe(run_folder).sample
    run = load_run(run_folder)
    for number, (text, drawn) in enumerate(zip(texts, draw(run, texts, settings), strict=True)):
        path = out / f"{number:03d}-{_file_name(text)}.png"
        with committing(path) as temporary:
            drawn.save(temporary, "PNG")
        yield f"{path}  {text}"
    captions = dict(zip(paths, describe(run, pictures, settings), strict=True))
    for picture, caption in captions.items():
        yield f"{picture}  {caption}"
    if captions:
        commit_json(out / "captions.json", captions)


def sample_held_out(run_folder: Path, out: Path) -> Iterator[str]:
    """Draw a sheet of held-out records: the picture, its codes, and what the model makes of it.

    Raises:
        UserError: when the corpus that the run was trained on is gone.
    """
    from trainer.generate.sample import contact_sheet
    from trainer.run import load_run

    settings = _recipe(run_folder).sample
    sheet = contact_sheet(
        load_run(run_folder), _held_out(run_folder, settings.num_sheet_pairs), settings
    )
    path = out / SHEET_FILE
    with committing(path) as temporary:
        sheet.save(temporary, "PNG")
    yield str(path)


def _held_out(run_folder: Path, count: int) -> list[tuple[str, bytes]]:
    """Text and picture of some held-out records, chosen by their hash."""
    _, corpus = open_corpus(to_path(read_json(run_folder / CORPUS_FILE)["corpus"]))
    return [(each.caption, each.content) for each in held_out_records(corpus, count, "sheet")]


def _recipe(run_folder: Path) -> Recipe:
    path = run_folder / RECIPE_FILE
    if not path.exists():
        message = f"{run_folder} holds no trained model: there is no {RECIPE_FILE} in it"
        raise UserError(message, "Run `anymix train` first.")
    return read_resolved_recipe(path)


def _read_picture(path: Path) -> Image.Image:
    try:
        return images.decode(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except images.ImageError as error:
        raise UserError(f"{path} is no picture that can be used: {error}") from error


def _file_name(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-")[:60] or "empty"
