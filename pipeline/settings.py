"""The base of every settings model: what a recipe may say about one part of the system."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo


class Settings(BaseModel):
    """Frozen, keyword-only and closed: an unknown key is an error, not a silent no-op.

    A field that changes nothing in a stage's output (a path, a pool size) is declared with
    `Field(exclude=True)`: it then stays out of `model_dump` and so out of the fingerprint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def _from_recipe_folder(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("recipe_folder", Path())
    # Links are not followed: an environment's `bin/python` is one, and its place is what counts.
    return Path(os.path.abspath(folder / path.expanduser()))  # noqa: PTH100


RecipePath = Annotated[Path, AfterValidator(_from_recipe_folder)]
"""A path, absolute or relative to the recipe that names it."""
