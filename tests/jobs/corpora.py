"""Fills corpora and looks at them, for the tests."""

import os

import pytest
from rich.console import Console

from jobs.progress import Reporter
from jobs.recipe import load_recipe
from jobs.run import fill, open_corpus
from pipeline.engine.fingerprint import hash_file
from pipeline.errors import UserError
from pipeline.ledger.audit import audit

SMALL_MODELS = """\
score:
  clip: {image_size: 32, width: 32, vision_layers: 1, text_layers: 1, steps: 2, batch_size: 16}
image_tokenizer:
  {image_size: 32, stride: 4, codebook_size: 32, width: 32, depth: 1, steps: 2, batch_size: 16}
text_tokenizer: {vocab_size: 400}
"""
"""Lines of a recipe: models that are fitted in a moment, and give every stage something to do."""


def run(recipe, root, until=None, **how):
    """Fill a corpus and return what was said."""
    console = Console(record=True, file=open(os.devnull, "w"), width=200)  # noqa: SIM115, PTH123
    fill(recipe, root, until=until, reporter=Reporter(console), **how)
    return console.export_text()


def files_of(root):
    """The hash of every file of a corpus that is the same in every run."""
    changing = {"events.jsonl", ".lock", "recipe.yaml"}
    return {
        path.relative_to(root).as_posix(): hash_file(path)
        for path in root.rglob("*")
        if path.is_file() and path.name not in changing
    }


def faults(root):
    return [finding for finding in audit(open_corpus(root)[1]) if finding.faults]


def refusal(folder, lines):
    """What is said of a recipe whose fourth line, and those after it, are wrong."""
    path = folder / "recipe.yaml"
    path.write_text(f"name: a\nsources:\n  - kind: shapes\n{lines}\n")
    with pytest.raises(UserError) as error:
        load_recipe(path)
    return str(error.value)
