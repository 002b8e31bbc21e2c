"""docs/training.md against the code."""

import re
from pathlib import Path

from jobs.recipe import load_recipe

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def test_the_recipe_with_stages_is_one():
    (recipe,) = re.findall(r"\]\((\S+stages\.yaml)\)", PAGE.read_text())
    stages = load_recipe(PAGE.parent / recipe).train.stages
    assert len(stages) == 3
    assert stages[0].freeze == ("blocks",)


def test_the_recipe_of_an_alignment_is_one(tmp_path):
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "my.yaml").write_text(block)
    recipe = load_recipe(tmp_path / "my.yaml")
    assert recipe.train.alignment.beta == 1
    assert recipe.sample.cfg_scale == 1
