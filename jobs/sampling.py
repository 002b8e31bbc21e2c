"""Makes pictures and sounds of texts and describes pictures with a trained model."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from jobs.pictures import chosen_records
from jobs.recipe import Recipe, read_resolved_recipe
from jobs.run import RECIPE_FILE, open_corpus
from jobs.training import CORPUS_FILE
from pipeline import images
from pipeline.engine.storage import commit_json, committing, read_json, to_path
from pipeline.errors import UserError

if TYPE_CHECKING:
    from trainer.generate.settings import SampleSettings
    from trainer.run import Run

SHEET_FILE = "sheet.png"
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"}
_HALVES: Mapping[str, Literal["train", "validation"]] = {
    "Held out: the model has not seen these pictures": "validation",
    "Trained: the model has seen these pictures": "train",
}
"""The parts of the sample sheet by their titles."""
_ALL = 100
"""Percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for besides the prompts.

    Attributes:
        negative: what the pictures or sounds of the texts shall not show.
        picture: path of a picture that the texts' pictures are drawn around.
        box: of `picture`, what is drawn again: left, top, width and height in percent.
        is_sound: whether texts become sounds and not pictures.
    """

    negative: str = ""
    picture: Path | None = None
    box: str | None = None
    is_sound: bool = False


NOTHING_ELSE = Request()


def sample_run(
    run_folder: Path, prompts: Sequence[str], out: Path, request: Request
) -> Iterator[str]:
    """What is asked for, or a sheet of records of the corpus where nothing is; yields lines.

    Raises:
        UserError: as `sample_prompts` and `sample_sheet` do.
    """
    if prompts or request != NOTHING_ELSE:
        return sample_prompts(run_folder, prompts, out, request)
    return sample_sheet(run_folder, out)


def sample_prompts(
    run_folder: Path, prompts: Sequence[str], out: Path, request: Request
) -> Iterator[str]:
    """Draw each text, describe each picture; yields a line for each result.

    Args:
        run_folder: a trained model.
        prompts: texts, or paths of pictures.
        out: the folder to fill: a PNG or WAV for each text, and `captions.json` for the pictures.
        request: what else is asked for.

    Raises:
        UserError: when a picture is not there or cannot be read, or what is asked for together does
            not fit.
    """
    from trainer.generate.sample import describe
    from trainer.run import load_run

    paths = [prompt for prompt in prompts if Path(prompt).suffix.lower() in _PICTURES]
    texts = [prompt for prompt in prompts if prompt not in paths]
    if request.picture is not None and not prompts:
        texts = [""]
    _check(request, texts)
    pictures = [_read_picture(Path(path)) for path in paths]
    settings = recipe_of(run_folder).sample
    run = load_run(run_folder)
    if texts:
        make = _make_sounds if request.is_sound else _draw
        yield from make(run, texts, settings, out, request)
    captions = dict(zip(paths, describe(run, pictures, settings), strict=True))
    for picture, caption in captions.items():
        yield f"{picture}  {caption}"
    if captions:
        commit_json(out / "captions.json", captions)


def sample_sheet(run_folder: Path, out: Path) -> Iterator[str]:
    """Draw a sheet of held-out and of trained records, each with what the model makes of it.

    Raises:
        UserError: when the corpus that the run was trained on is gone.
    """
    from trainer.generate.sample import contact_sheet
    from trainer.run import load_run

    settings = recipe_of(run_folder).sample
    _, corpus = open_corpus(to_path(read_json(run_folder / CORPUS_FILE)["corpus"]))
    halves = {
        title: [
            (each.caption, each.content)
            for each in chosen_records(corpus, split, settings.num_sheet_pairs, "sheet")
        ]
        for title, split in _HALVES.items()
    }
    sheet = contact_sheet(load_run(run_folder), halves, settings)
    path = out / SHEET_FILE
    with committing(path) as temporary:
        sheet.save(temporary, "PNG")
    yield str(path)


def box_cells(box: str, grid: tuple[int, int]) -> np.ndarray:
    """The codes that a box touches.

    Args:
        box: left, top, width and height in percent of the picture, such as `25,25,50,50`.
        grid: rows and columns of the codes.

    Returns:
        (h, w) bool.

    Raises:
        UserError: when it is no box inside the picture.
    """
    hint = "Write LEFT,TOP,WIDTH,HEIGHT in percent of the picture, such as 25,25,50,50."
    try:
        left, top, width, height = (float(part) for part in box.split(","))
    except ValueError:
        raise UserError(f"--box {box} is not four numbers", hint) from None
    is_inside = left >= 0 and top >= 0 and left + width <= _ALL and top + height <= _ALL
    if not (is_inside and width > 0 and height > 0):
        raise UserError(f"--box {box} is no box inside the picture", hint)
    rows, columns = grid
    cells = np.zeros(grid, bool)
    cells[
        math.floor(top * rows / _ALL) : math.ceil((top + height) * rows / _ALL),
        math.floor(left * columns / _ALL) : math.ceil((left + width) * columns / _ALL),
    ] = True
    return cells


def recipe_of(run_folder: Path) -> Recipe:
    """The recipe that a run was trained with.

    Raises:
        UserError: when the folder holds no run.
    """
    path = run_folder / RECIPE_FILE
    if not path.exists():
        message = f"{run_folder} holds no trained model: there is no {RECIPE_FILE} in it"
        raise UserError(message, "Run `anymix train` first.")
    return read_resolved_recipe(path)


def _draw(
    run: Run, texts: Sequence[str], settings: SampleSettings, out: Path, request: Request
) -> Iterator[str]:
    from trainer.generate.sample import Given, draw

    codes = cells = None
    if request.picture is not None:
        (codes,) = run.images.encode_images([_read_picture(request.picture)])  # (h, w)
        if request.box is not None and codes.shape != run.vocabulary.image.grid:
            message = (
                f"the codes of {run.folder} are in several scales, and no box is cut from them"
            )
            raise UserError(message, "Leave --box out.")
        cells = None if request.box is None else box_cells(request.box, codes.shape)
    given = Given(negative=request.negative, picture=codes, hidden=cells)
    drawn = zip(texts, draw(run, texts, settings, given), strict=True)
    for number, (text, picture) in enumerate(drawn):
        path = out / f"{number:03d}-{_file_name(text)}.png"
        with committing(path) as temporary:
            picture.save(temporary, "PNG")
        yield f"{path}  {text}"


def _make_sounds(
    run: Run, texts: Sequence[str], settings: SampleSettings, out: Path, request: Request
) -> Iterator[str]:
    import soundfile

    from trainer.generate.sample import make_sounds

    made = zip(texts, make_sounds(run, texts, settings, negative=request.negative), strict=True)
    for number, (text, codes) in enumerate(made):
        path = out / f"{number:03d}-{_file_name(text)}.wav"
        samples = run.sounds.decode(codes).clip(-1, 1)  # (S,)
        with committing(path) as temporary:
            rate = run.sounds.sampling_rate
            soundfile.write(temporary, samples, rate, format="WAV", subtype="PCM_16")
        yield f"{path}  {text}"


def _check(request: Request, texts: Sequence[str]) -> None:
    if request.box is not None and request.picture is None:
        raise UserError("--box is a part of a picture", "Name the picture with --picture.")
    if request.is_sound and request.picture is not None:
        raise UserError("--sound makes no pictures", "Leave --sound or --picture out.")
    if request != NOTHING_ELSE and not texts:
        message = "the options say how texts are drawn, and there is no text"
        raise UserError(message, "Give one or more texts as prompts.")


def _read_picture(path: Path) -> Image.Image:
    try:
        return images.decode(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except images.ImageError as error:
        raise UserError(f"{path} is no picture that can be used: {error}") from error


def _file_name(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-")[:60] or "empty"
