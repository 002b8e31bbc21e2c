import shutil

import pytest

from jobs.recipe import load_recipe
from tests.jobs.corpora import run
from tests.sharing import made_once

TINY = """
name: tiny-shapes
sources:
  - {kind: shapes, num_records: 120, size: 32}
  - {kind: pydoc, limit: 40}
ingest: {rows_per_part: 40, validation_share: 0.15}
score:
  clip: {image_size: 32, width: 32, vision_layers: 1, text_layers: 1, steps: 4, batch_size: 16}
select:
  rules:
    caption_quality: {min: 1}
    clip_score: {quantile: 0.1}
image_tokenizer:
  {image_size: 32, stride: 4, codebook_size: 32, width: 32, depth: 1, steps: 8, batch_size: 16}
text_tokenizer: {vocab_size: 400}
train:
  model: {layers: 1, width: 32, heads: 2}
  steps: 6
  tokens_per_step: 512
  evaluate_every_steps: 3
sample: {num_sheet_pairs: 2}
evaluate:
  {max_pairs: 6, max_drawn: 4, max_retrieved: 8, num_shapes: 10, pictures_per_shape: 2,
   num_resamples: 100}
run: {num_workers: 0}
"""


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory):
    """A recipe whose whole corpus is made in seconds, in this process."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture
def load(tiny_recipe):
    """Loads the tiny recipe with some lines changed."""
    return lambda *changes: load_recipe(tiny_recipe, changes)


@pytest.fixture(scope="session")
def made(tiny_recipe, tmp_path_factory):
    """The tiny corpus, made once; tests that change it take a copy."""
    recipe = load_recipe(tiny_recipe)
    return made_once(tmp_path_factory, "shapes", lambda root: run(recipe, root), copies=True)


@pytest.fixture
def corpus(made, tmp_path):
    root = tmp_path / "corpus"
    shutil.copytree(made, root)
    return root
