"""Draws the prompts of judges that run elsewhere, and writes the pictures as they read them.

The prompts are in a file of the judge's own repository, which is not part of this one. The layouts
are those of the repositories' code on 1 December 2026; each reader below names the file of it.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from pipeline.engine.fingerprint import hash_file, hash_folder
from pipeline.engine.storage import TEMPORARY_SUFFIX, commit_json, committing, read_json
from pipeline.errors import UserError
from trainer.differences import differences
from trainer.generate.sample import draw
from trainer.generate.settings import SampleSettings
from trainer.run import Run
from trainer.train.checkpoint import AVERAGE, best_checkpoint

PICTURES = "images"
"""The folder that a judge is given. Nothing else is in it: some read every file that they find."""
EXPORT_FILE = "export.json"
"""What decides the pictures, so that no folder holds those of two models."""

_BATCH = 32
"""Pictures between two commits, all of one batch."""


class Prompt(NamedTuple):
    """A text to draw, and where the judge looks for its picture in the folder of pictures."""

    text: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """What a judge reads.

    Attributes:
        title: its name.
        repository: where its code is.
        prompts: which file or folder of the repository has the prompts.
        read: the prompts in that place; the second argument is the name of the model.
        side: a file shows side x side pictures of its prompt, row by row.
        format: of the files, as Pillow calls it.
        paths_file: a file that says where the picture of each prompt is, for a judge that reads it.
        command: how a checkout of the repository judges the pictures in `out`.
    """

    title: str
    repository: str
    prompts: str
    read: Callable[[Path, str], list[Prompt]]
    side: int
    format: str
    command: str
    paths_file: str | None = None


class _WrongFileError(Exception):
    """Where in a file of prompts something else is than the judge's code reads there."""


def read_prompts(judge: Judge, path: Path, model: str) -> list[Prompt]:
    """The prompts of a judge in the order of its file.

    Args:
        judge: whose they are.
        path: the file or folder.
        model: what the judge is to call the model.

    Raises:
        UserError: when it cannot be read or is not as the judge's code reads it; names the place.
    """
    try:
        prompts = judge.read(path, model)
        _check_files(prompts)
    except OSError as error:
        wrong = f"{path} cannot be read: {error.strerror}"
    except json.JSONDecodeError as error:
        wrong = f"{path}:{error.lineno}: no JSON: {error.msg}"
    except csv.Error as error:
        wrong = f"{path}: {error}"
    except _WrongFileError as error:
        wrong = f"{path}{error}"
    else:
        return prompts
    hint = f"Give --prompts {judge.prompts} of a checkout of https://github.com/{judge.repository}."
    raise UserError(wrong, hint)


def num_cut(run: Run, prompts: Sequence[Prompt]) -> int:
    """How many of the prompts are longer than the captions that a run was trained with."""
    most = run.settings.caption_max_tokens
    return sum(len(run.text.encode(prompt.text)) > most for prompt in prompts)


def what_decides(run: Run, name: str, prompts: Path, settings: SampleSettings) -> dict[str, Any]:
    """Everything that decides exported pictures, by name.

    Args:
        run: the model; its folder's name is its name for the judge.
        name: of the judge.
        prompts: the file or folder of its prompts.
        settings: how they are drawn.
    """
    best = best_checkpoint(run.folder)
    assert best is not None, "the run was loaded from it"  # noqa: S101
    sampling = settings.model_dump(mode="json", include={"cfg_scale", "image", "seed"})
    return {
        "the judge": name,
        "the prompts": hash_folder(prompts) if prompts.is_dir() else hash_file(prompts),
        "the model's name": run.folder.resolve().name,
        "the weights": hash_file(best / AVERAGE),
        **{f"sample.{key}": value for key, value in sampling.items()},
    }


def claim(out: Path, decided: Mapping[str, Any]) -> None:
    """Make a folder that of one export, and clear what a killed one has left half-written.

    Args:
        out: the folder, whose lock the caller holds.
        decided: from `what_decides`.

    Raises:
        UserError: when it holds other pictures.
    """
    path, hint = out / EXPORT_FILE, "Give another --out, or remove that folder."
    if path.exists():
        differing = differences(read_json(path), decided)
        if differing:
            raise UserError(f"{out} holds other pictures: {'; '.join(differing.values())}", hint)
    elif (out / PICTURES).exists():
        raise UserError(f"{out / PICTURES} was written by something else", hint)
    commit_json(path, decided)
    for left in (out / PICTURES).rglob(f".*{TEMPORARY_SUFFIX}"):
        left.unlink()


def export_pictures(
    run: Run, judge: Judge, prompts: Sequence[Prompt], out: Path, settings: SampleSettings
) -> Iterator[int]:
    """Draw what is not there yet.

    A picture depends on the settings' seed, its prompt and its number in the file of prompts alone,
    so that an export that was stopped ends with the pictures of an undisturbed one.

    Args:
        run: the model.
        judge: the layout.
        prompts: from `read_prompts`.
        out: the folder to fill, from `claim`.
        settings: how they are drawn.

    Yields:
        How many files there are, at the beginning and after each batch.
    """
    num_each = judge.side**2
    files = [out / PICTURES / prompt.file for prompt in prompts]
    missing = [number for number, file in enumerate(files) if not file.exists()]
    num_there = len(files) - len(missing)
    yield num_there
    for numbers in _stretches(missing, max(1, _BATCH // num_each)):
        texts = [prompts[number].text for number in numbers for _ in range(num_each)]
        drawn = draw(run, texts, settings, first=numbers[0] * num_each)
        for place, number in enumerate(numbers):
            shown = in_grid(drawn[place * num_each : (place + 1) * num_each], judge.side)
            with committing(files[number]) as temporary:
                shown.save(temporary, judge.format, lossless=True)  # of effect for WebP alone
        num_there += len(numbers)
        yield num_there
    if judge.paths_file is not None:
        # The judge is started in a folder of its own, so the paths are absolute.
        paths = {each.text: str(file.resolve()) for each, file in zip(prompts, files, strict=True)}
        commit_json(out / judge.paths_file, paths)


def in_grid(pictures: Sequence[Image.Image], side: int) -> Image.Image:
    """Pictures of one size as one, row by row."""
    width, height = pictures[0].size
    grid = Image.new("RGB", (side * width, side * height))
    for number, picture in enumerate(pictures):
        grid.paste(picture, (number % side * width, number // side * height))
    return grid


def _geneval2(path: Path, _model: str) -> list[Prompt]:
    """One JSON object a line with `prompt`; the pictures' names are free (`evaluation.py`)."""
    prompts: list[Prompt] = []
    for number, line in enumerate(io.StringIO(_read_text(path)), 1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise _WrongFileError(f":{number}: no JSON: {error.msg}") from error
        text = _text(entry, "prompt", f":{number}")
        prompts.append(Prompt(text, f"{len(prompts):04}.png"))
    return prompts


def _wise(path: Path, _model: str) -> list[Prompt]:
    """A list of objects with `prompt_id` and `Prompt`; `ID.png` each (`vllm_eval.py`)."""
    entries = json.loads(_read_text(path))
    if not isinstance(entries, list):
        raise _WrongFileError(": a JSON list is expected")
    prompts = []
    for number, entry in enumerate(entries, 1):
        text = _text(entry, "Prompt", f": entry {number}")
        id_ = entry.get("prompt_id")
        if type(id_) is not int or id_ < 1:
            raise _expected(f": entry {number}", "prompt_id", "a number from 1", id_)
        prompts.append(Prompt(text, f"{id_}.png"))
    return prompts


_ONEIG_FOLDERS = {
    "Anime_Stylization": "anime",
    "Portrait": "human",
    "General_Object": "object",
    "Text_Rendering": "text",
    "Knowledge_Reasoning": "reasoning",
    "Multilingualism": "multilingualism",
}


def _oneig(path: Path, model: str) -> list[Prompt]:
    """A table with `category`, `id`, and `prompt_en` or `prompt_cn`.

    `FOLDER/MODEL/ID.webp` each (`text2image.py`). The scores take the first three characters of a
    name for the id (`scripts/style/style_score.py`), and what begins with an id for its picture.
    """
    rows = csv.DictReader(io.StringIO(_read_text(path), newline=""))
    columns = rows.fieldnames or []
    column = next((name for name in ("prompt_en", "prompt_cn") if name in columns), None)
    if column is None:
        raise _WrongFileError(
            f":1: column prompt_en or prompt_cn is expected, and it has {columns}"
        )
    prompts = []
    for row in rows:
        where = f":{rows.line_num}"
        text, category, id_ = (_text(row, name, where) for name in (column, "category", "id"))
        if category not in _ONEIG_FOLDERS:
            raise _expected(where, "category", f"one of {', '.join(_ONEIG_FOLDERS)}", category)
        if not re.fullmatch(r"[0-9]{3}", id_):
            raise _expected(where, "id", "three digits", id_)
        prompts.append(Prompt(text, f"{_ONEIG_FOLDERS[category]}/{model}/{id_}.webp"))
    return prompts


def _dpg(path: Path, _model: str) -> list[Prompt]:
    """A folder of texts; each picture has the name of its text (`README.md`, DPG-Bench).

    The score takes what is before the first dot for the name (`dpg_bench/compute_dpg_bench.py`).
    """
    prompts = []
    for file in sorted(path.iterdir()):
        if file.suffix != ".txt":
            continue
        if "." in file.stem:
            raise _WrongFileError(f"/{file.name}: its name has more dots than that of .txt")
        text = _read_text(file, f"/{file.name}").strip()
        if not text:
            raise _WrongFileError(f"/{file.name}: a text is expected, and it is empty")
        prompts.append(Prompt(text, f"{file.stem}.png"))
    return prompts


JUDGES = {
    "geneval2": Judge(
        title="GenEval 2",
        repository="facebookresearch/GenEval2",
        prompts="geneval2_data.jsonl",
        read=_geneval2,
        side=1,
        format="PNG",
        command="python evaluation.py --benchmark_data geneval2_data.jsonl --image_filepath_data "
        "{out}/images.json --method soft_tifa_gm --output_file {out}/scores.json",
        paths_file="images.json",
    ),
    "wise": Judge(
        title="WISE",
        repository="PKU-YuanGroup/WISE",
        prompts="data_verified/merge.json",
        read=_wise,
        side=1,
        format="PNG",
        command="IMAGE_DIR={out}/images bash eval_qwen.sh",
    ),
    "oneig": Judge(
        title="OneIG-Bench",
        repository="OneIG-Bench/OneIG-Benchmark",
        prompts="OneIG-Bench.csv or OneIG-Bench-ZH.csv",
        read=_oneig,
        side=2,
        format="WEBP",
        command="python -m scripts.alignment.alignment_score --image_dirname {out}/images "
        "--model_names {model} --image_grid 2,2 --class_items anime human object",
    ),
    "dpg": Judge(
        title="DPG-Bench",
        repository="TencentQQGYLab/ELLA",
        prompts="dpg_bench/prompts",
        read=_dpg,
        side=2,
        format="PNG",
        command="bash dpg_bench/dist_eval.sh {out}/images {size}",
    ),
}
"""The judges that pictures can be exported for, by the name that `--for` takes."""


def _read_text(path: Path, where: str = "") -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        wrong = f"{where} is no text in UTF-8: {error.reason} at byte {error.start}"
        raise _WrongFileError(wrong) from error


def _text(entry: Any, name: str, where: str) -> str:  # noqa: ANN401 - unchecked input
    """A field that holds a text that is not empty."""
    if not isinstance(entry, Mapping):
        raise _WrongFileError(f"{where}: an object with {name} is expected, and it is {entry!r}")
    text = entry.get(name)
    if not isinstance(text, str) or not text.strip():
        raise _expected(where, name, "a text", text)
    return text


def _expected(where: str, name: str, what: str, found: object) -> _WrongFileError:
    is_there = "it is missing" if found is None else f"it is {found!r}"
    return _WrongFileError(f"{where}: field {name}: {what} is expected, and {is_there}")


def _check_files(prompts: Sequence[Prompt]) -> None:
    """Refuse files without a prompt, and two prompts for one picture."""
    if not prompts:
        raise _WrongFileError(" has no prompts")
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.file in seen:
            raise _WrongFileError(f" has two prompts for {prompt.file}")
        seen.add(prompt.file)


def _stretches(numbers: Iterable[int], size: int) -> Iterator[list[int]]:
    """Ascending numbers as lists of at most `size` that follow each other."""
    held: list[int] = []
    for number in numbers:
        if held and (len(held) == size or number != held[-1] + 1):
            yield held
            held = []
        held.append(number)
    if held:
        yield held
