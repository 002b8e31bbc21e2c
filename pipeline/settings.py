"""The base of every settings model: what a recipe may say about one part of the system."""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
)

from pipeline.engine.storage import is_local, to_path


class Settings(BaseModel):
    """Frozen, keyword-only and closed: an unknown key is an error, not a silent no-op.

    A field that changes nothing in a stage's output (a path, a pool size) is declared with
    `Field(exclude=True)`: it then stays out of `model_dump` and so out of the fingerprint. A field
    that is added later, and whose default changes nothing, is left out at that default
    (`Field(default=None, exclude_if=lambda value: value is None)`), so that corpora keep theirs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def _from_recipe_folder(value: Any, info: ValidationInfo) -> Path:  # noqa: ANN401 - unchecked input
    if not isinstance(value, str) and not hasattr(value, "joinpath"):
        message = "Input should be a path: a text"
        raise ValueError(message)
    path = to_path(value)
    if not is_local(path):
        return path
    folder = (info.context or {}).get("recipe_folder", Path())
    # Links are not followed: an environment's `bin/python` is one, and its place is what counts.
    return Path(os.path.abspath(folder / path.expanduser()))  # noqa: PTH100


RecipePath = Annotated[
    Path, PlainValidator(_from_recipe_folder), PlainSerializer(str, when_used="json")
]
"""A path, absolute or relative to the recipe that names it, or the URL of a folder on a store."""


def _is_there(path: Path, info: ValidationInfo) -> Path:
    if info.context is not None and not path.exists():
        message = "there is no such file or folder"
        raise ValueError(message)
    return path


ExistingPath = Annotated[RecipePath, AfterValidator(_is_there)]
"""A `RecipePath` that is there when a recipe is read; a corpus outlives the files of its recipe."""


def existing_place(value: str, info: ValidationInfo) -> str:
    """A file or folder, relative to the recipe, as an absolute path; another text as it is.

    Raises:
        ValueError: when a recipe names an absolute path that is not there.
    """
    path = Path(value).expanduser()
    there = (info.context or {}).get("recipe_folder", Path()) / path
    if there.exists():
        return str(there.absolute())
    if path.is_absolute() and info.context is not None:
        message = "there is no such file or folder"
        raise ValueError(message)
    return value
