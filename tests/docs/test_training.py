"""docs/training.md against the code."""

import re
from pathlib import Path

from jobs.recipe import load_recipe

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def test_the_recipe_with_stages_is_one():
    (recipe,) = re.findall(r"\]\((\S+\.yaml)\)", PAGE.read_text())
    stages = load_recipe(PAGE.parent / recipe).train.stages
    assert len(stages) == 3
    assert stages[0].freeze == ("blocks",)
