"""A small corpus made by the public way, with an LLM's answers replayed and hostile captions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from rich.console import Console

from jobs.progress import Reporter
from jobs.recipe import Recipe
from jobs.run import fill, open_corpus
from jobs.stages import part_extras, steps
from jobs.training import train_model
from pipeline.engine.corpus import Corpus, Task
from pipeline.engine.stage import StageSpec
from pipeline.synthesis.collector import Collector
from pipeline.synthesis.limit import read_cut
from pipeline.synthesis.prompts import Prompts, load_prompts
from pipeline.synthesis.requests import ERROR_COLUMN, STAGE, read_requests, select_records
from tests.sharing import made_once

HOSTILE = '<script>alert("1")</script> | a *cup*'
NEVER_WRITTEN = "neon sign"
NUM_SHAPES, NUM_TEXTS, NUM_FILES = 70, 24, 10

AnswerOf = Callable[[int, dict[str, Any], str, Prompts], str]
"""The LLM's answer: to the number of a request in its round, the request, and the caption."""

_TRAIN = {
    "steps": 4, "tokens_per_step": 512, "evaluate_every_steps": 2, "evaluate_rows": 2,
    "model": {"layers": 1, "width": 32, "heads": 2},
}  # fmt: skip


def tiny_recipe(folder: Path, **changes: object) -> Recipe:
    """Pictures of shapes and of a folder, and texts; every model as small as it can be."""
    clip = {
        "steps": 2, "batch_size": 8, "image_size": 32, "vision_layers": 1, "text_layers": 1,
        "width": 32,
    }  # fmt: skip
    settings = {
        "name": "tiny",
        "description": "Shapes, <b>files</b> and texts.",
        "sources": [
            {"kind": "shapes", "num_records": NUM_SHAPES},
            {"kind": "folder", "path": str(folder), "attribution": HOSTILE},
            {"kind": "pydoc", "limit": NUM_TEXTS},
        ],
        "ingest": {"rows_per_part": 40, "validation_share": 0.2},
        "synthesis": {"limit": 16, "model": "replayed", "attempts": 1, "critics": None},
        "score": {"clip": clip},
        "select": {"rules": {"caption_quality": {"min": 1}, "clip_score": {"quantile": 0.2}}},
        "image_tokenizer": {
            "image_size": 32, "stride": 8, "codebook_size": 16, "width": 16, "depth": 1,
            "steps": 4, "batch_size": 8,
        },
        "text_tokenizer": {"vocab_size": 300},
        "train": _TRAIN,
        "evaluate": {
            "max_pairs": 8, "max_rows": 4, "max_drawn": 4, "max_retrieved": 4, "max_described": 4,
            "num_shapes": 5, "pictures_per_shape": 1, "num_resamples": 100,
        },
        "run": {"num_workers": 0},
    }  # fmt: skip
    return Recipe.model_validate({**settings, **changes})


def answer_well_and_badly(
    number: int, request: dict[str, Any], caption: str, prompts: Prompts
) -> str:
    """Three good answers, then one that is no JSON, then one that repeats the record's caption."""
    texts = _texts(caption, prompts.styles[request["style"]])
    answer = {form: texts[form] for form in request["forms"]}
    match number % 5:
        case 3:
            return "this is not JSON"
        case 4:
            return json.dumps(dict.fromkeys(answer, caption))
        case _:
            return json.dumps(answer)


def answer_better_when_asked_again(
    number: int, request: dict[str, Any], caption: str, prompts: Prompts
) -> str:
    """What the critics take, but for a made-up colour at first, and one style that never comes."""
    texts = _texts(caption, prompts.styles[request["style"]]) | {"absent": "a dog"}
    if request["attempt"] == 1:
        texts["sentence"] = f"A picture of turquoise, {caption}."
    if request["style"] == NEVER_WRITTEN:
        texts["style"] = ""
    return json.dumps({form: texts[form] for form in request["forms"]})


def _texts(caption: str, opening: str) -> dict[str, str]:
    """A text of each form for a caption of a shape."""
    return {
        "tags": f"{caption}, shape",
        "sentence": f"A picture of {caption}.",
        "dense": f"The picture shows {caption}. It is {caption}.",
        "style": f"{opening} {caption}.",
        "absent": "dog, <img src=x onerror=alert(1)>",
        "contrast": "A picture of a dog.",
        "question": f"What is it? It is {caption}.",
        "description": f"It is {caption} and it has a form.",
        "dialogue": f"A: What is that? B: That is {caption}.",
        "bridge": f"After {caption} comes another shape.",
    }


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures: one has no caption, one is damaged, one is there twice."""
    return made_once(tmp_path_factory, "hostile-pictures", _draw_pictures, copies=False)


def _draw_pictures(folder: Path) -> None:
    for number in range(NUM_FILES):
        Image.new("RGB", (40, 30), (number // 2 * 40, 90, 160)).save(folder / f"{number}.png")
        caption = HOSTILE if number < 4 else f"a plain ground of the shade {number // 2}"
        (folder / f"{number}.txt").write_text(caption)
    (folder / "8.txt").unlink()
    (folder / "9.png").write_bytes(b"no picture")


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """The folder of a corpus that is complete, with its shards."""
    recipe = tiny_recipe(pictures)

    def make(folder: Path) -> None:
        fill(recipe, folder, until="synthesis", reporter=Reporter(Console(quiet=True)))
        replay(folder)
        fill(recipe, folder, until=None, reporter=Reporter(Console(quiet=True)))

    return made_once(tmp_path_factory, "hostile-corpus", make, copies=True)


@pytest.fixture
def corpus(root: Path) -> Corpus:
    return open_corpus(root)[1]


@pytest.fixture(scope="session")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that was trained on the corpus for a few steps."""
    folder = tmp_path_factory.mktemp("run")
    recipe, _ = open_corpus(root)
    train_model(recipe, root, folder, fresh=False, console=Console(quiet=True))
    return folder


@pytest.fixture(scope="session")
def rewritten(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """The folder of a corpus up to the LLM's texts, where the critics sent many back once."""
    folder = tmp_path_factory.mktemp("rewritten")
    recipe = tiny_recipe(pictures, synthesis={"limit": None, "model": "replayed", "attempts": 2})
    fill(recipe, folder, until="synthesis", reporter=Reporter(Console(quiet=True)))
    replay(folder, answer_better_when_asked_again)
    fill(recipe, folder, until="synthesize", reporter=Reporter(Console(quiet=True)))
    return folder


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """The folder of a corpus whose run was stopped after the first stage."""
    folder = tmp_path_factory.mktemp("begun")
    recipe = tiny_recipe(pictures, synthesis={"limit": 0})
    fill(recipe, folder, until="ingest", reporter=Reporter(Console(quiet=True)))
    return folder


def replay(root: Path, answer: AnswerOf = answer_well_and_badly) -> None:
    """Commit the answers of a corpus as an LLM gives them, round after round."""
    recipe, corpus = open_corpus(root)
    settings, prompts = recipe.synthesis, load_prompts(recipe.synthesis)
    cut = read_cut(corpus.models["synthesis"])
    for task in _tasks(recipe, corpus):
        row = {"part": task.work.part, "tasks": json.dumps({STAGE: task.to_json()}), "done": "[]"}
        captions = select_records(task.work, cut)
        while not task.output.exists():
            requests = read_requests(row, settings=settings, prompts=prompts, cut=cut)
            answers = [
                request
                if request[ERROR_COLUMN]  # asks for nothing
                else {
                    **{name: value for name, value in request.items() if name != "sampling_params"},
                    "generated_text": answer(
                        number, request, captions[request["record_id"]][0], prompts
                    ),
                    "num_input_tokens": 300,
                    "num_generated_tokens": 40,
                    ERROR_COLUMN: "",
                }
                for number, request in enumerate(requests)
            ]
            collector = Collector(
                settings=settings, prompts=prompts, cut=cut, model="replayed@0", num_parts=9
            )
            collector(pa.Table.from_pylist(answers))


def _tasks(recipe: Recipe, corpus: Corpus) -> list[Task]:
    (spec,) = (step for step in steps(recipe) if step.name == "ask")
    assert isinstance(spec, StageSpec)
    return corpus.resolve_stage(spec, part_extras(spec, recipe, corpus))
