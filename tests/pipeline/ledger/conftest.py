"""A small corpus of a folder of pictures, with texts as an LLM would have written them."""

import shutil

import pyarrow as pa
import pytest
from PIL import Image, ImageDraw
from rich.console import Console

from jobs.progress import Reporter
from jobs.recipe import Recipe
from jobs.run import fill, open_corpus
from jobs.stages import part_extras, steps
from pipeline.engine.corpus import Task
from pipeline.engine.schemas import ANSWERS, REJECTS, VARIANTS
from pipeline.engine.stage import Work
from pipeline.engine.tables import read_table, write_table
from pipeline.synthesis import answers
from pipeline.synthesis.forms import forms_of
from tests.sharing import made_once

NUM_PICTURES = 20


@pytest.fixture(scope="session")
def quiet():
    return Reporter(Console(quiet=True))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Pictures with captions; 1 is 0 again, one is damaged, one has no caption."""
    return made_once(tmp_path_factory, "boxes", _draw_boxes, copies=False)


def _draw_boxes(folder):
    for number in range(NUM_PICTURES):
        image = Image.new("RGB", (32, 32), (number // 2 * 20, 90, 160) if number < 2 else "white")
        place = (number, number, number + 8, number + 8)
        if number > 1:
            ImageDraw.Draw(image).rectangle(place, fill=(number * 12, 40, 255 - number * 12))
        image.save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(f"a plain box with the quaint number {number}")
    (folder / "90.png").write_bytes(b"no picture")
    (folder / "90.txt").write_text("nothing that can be seen")
    shutil.copy(folder / "05.png", folder / "91.png")


@pytest.fixture(scope="session")
def recipe(pictures):
    return Recipe.model_validate(
        {
            "name": "tiny",
            "sources": [
                {"kind": "folder", "path": str(pictures), "licence": "CC0-1.0"},
                {"kind": "pydoc", "limit": 10},
            ],
            "ingest": {"rows_per_part": 6, "validation_share": 0.2},
            "synthesis": {"limit": 8, "model": "replayed"},
            "score": {
                "clip": {
                    "steps": 2, "batch_size": 4, "image_size": 32, "vision_layers": 1,
                    "text_layers": 1, "width": 32,
                },
            },
            "select": {"rules": {"clip_score": {"quantile": 0.1}}},
            "image_tokenizer": {
                "image_size": 32, "stride": 8, "codebook_size": 16, "width": 16, "depth": 1,
                "steps": 4, "batch_size": 4,
            },
            "text_tokenizer": {"vocab_size": 300},
            "run": {"num_workers": 0},
        }
    )  # fmt: skip


@pytest.fixture(scope="session")
def made(recipe, quiet, tmp_path_factory):
    """The corpus, made once; tests that change it take a copy."""

    def make(root):
        fill(recipe, root, until="synthesis", reporter=quiet)
        write_variants(root)
        fill(recipe, root, until=None, reporter=quiet)

    return made_once(tmp_path_factory, "corpus-of-boxes", make, copies=True)


@pytest.fixture
def root(made, tmp_path):
    shutil.copytree(made, tmp_path / "corpus")
    return tmp_path / "corpus"


@pytest.fixture(scope="session")
def add_variants():
    return write_variants


def write_variants(root):
    """Commit a caption by the LLM for some records of each part."""
    recipe, corpus = open_corpus(root)
    by_name = {step.name: step for step in steps(recipe)}
    for task in corpus.resolve_stage(by_name["ask"], part_extras(by_name["ask"], recipe, corpus)):
        write_table(task.rejects, [], REJECTS)
        write_table(task.output, [], ANSWERS)
    spec = by_name["synthesize"]
    for task in corpus.resolve_stage(spec, part_extras(spec, recipe, corpus)):
        records = read_table(task.work.inputs["records"]).to_pylist()
        pictures = [record for record in records if record["image_id"]]
        rows = [
            variant(record["record_id"], "caption", f"the model saw {record['caption']}")
            for record in pictures[::2]
        ]
        rows += [
            variant(record["record_id"], "text", f"All about {record['caption']}.")
            for record in pictures[1::2]
        ]
        rows += [
            variant(one["record_id"], "interleave", f"Next: {other['caption']}", other["record_id"])
            for one, other in zip(pictures[::2], pictures[1::2], strict=False)
        ]
        write_table(task.rejects, [], REJECTS)
        write_table(task.output, rows, VARIANTS)


def variant(record_id, kind, text, next_id=None):
    """A row of `variants` as an LLM would have given it."""
    blank = {
        name: 1 for name in VARIANTS.names if not pa.types.is_string(VARIANTS.field(name).type)
    }
    return blank | {
        "record_id": record_id, "variant_id": f"{record_id}-{kind}", "kind": kind,
        "form": forms_of(kind)[0], "text": text, "style": None, "next_id": next_id,
        "model": "replayed", "prompt": "p", "seed": 7,
    }  # fmt: skip


@pytest.fixture
def keep_answers():
    """Keeps an answer about a record as a run that is under way does; gives its file."""

    def keep(root, part, record_id, print_="earlier"):
        table = root / "tables" / "answers" / print_ / f"{part}.parquet"
        task = Task(work=Work(part=part), output=table, rejects=table)
        row = dict.fromkeys(ANSWERS.names, "-") | {
            "record_id": record_id, "kind": "caption", "role": "write", "forms": [],
            "attempt": 1, "seed": 1,
            "temperature": 0.3, "top_p": 1.0, "max_tokens": 160, "num_prompt_tokens": 1,
            "num_output_tokens": 1,
        }  # fmt: skip
        answers.keep(task, [row])
        (path,) = (root / "answers" / print_ / part).iterdir()
        return path

    return keep
