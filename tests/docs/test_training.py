"""docs/training.md against the code."""

import re
from pathlib import Path

from jobs.recipe import load_recipe

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_recipe_with_stages_is_one(tmp_path):
    (tmp_path / "my.yaml").write_text(BLOCKS[0])
    stages = load_recipe(tmp_path / "my.yaml").train.stages
    assert [stage.steps for stage in stages] == [200, 600, 200]
    assert stages[0].freeze == ("blocks",)


def test_the_recipe_of_an_alignment_is_one(tmp_path):
    (tmp_path / "my.yaml").write_text(BLOCKS[1])
    recipe = load_recipe(tmp_path / "my.yaml")
    assert recipe.train.alignment.beta == 1
    assert recipe.sample.cfg_scale == 1
