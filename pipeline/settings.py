"""The base of every settings model: what a recipe may say about one part of the system."""

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticKnownError

from pipeline.engine.storage import is_local, to_path


class Settings(BaseModel):
    """Frozen, keyword-only and closed: an unknown key is an error, not a silent no-op.

    A field that changes nothing in a stage's output (a path, a pool size) is declared with
    `Field(exclude=True)`: it then stays out of `model_dump` and so out of the fingerprint. A field
    that is added later, and whose default changes nothing, is left out at that default
    (`Field(default=None, exclude_if=lambda value: value is None)`), so that corpora keep theirs.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("name", check_fields=False)
    @classmethod
    def _can_begin_a_file_name(cls, name: str) -> str:
        """The name of a source is part of the names of its files, and a recipe's names a folder."""
        if len(name.encode(errors="replace")) > _MAX_NAME_BYTES:
            message = f"a name may have {_MAX_NAME_BYTES} bytes: it begins the names of files"
            raise ValueError(message)
        if not _NAME.fullmatch(name):
            message = (
                "a name begins the names of files: it starts with a letter or a digit, and has no"
                ' / or \\, none of : * ? [ ] < > | ", and no line break'
            )
            raise ValueError(message)
        return name


_MAX_NAME_BYTES = 100
_NAME = re.compile(r"\w[^/\\:*?\[\]<>|\"\x00-\x1f\x7f]*(?<! )")


def _from_recipe_folder(value: Any, info: ValidationInfo) -> Path:  # noqa: ANN401 - unchecked input
    if not isinstance(value, str) and not hasattr(value, "joinpath"):
        raise PydanticKnownError("string_type")
    path = to_path(_with_variables(value, info) if isinstance(value, str) else value)
    if not is_local(path):
        return path
    # Links are not followed: an environment's `bin/python` is one, and its place is what counts.
    there = Path(os.path.abspath(_folder_of(info) / os.path.expanduser(path)))  # noqa: PTH100, PTH111
    if info.context is not None:
        _is_there(there)
    return there


def _folder_of(info: ValidationInfo) -> Path:
    """Where the recipe lies that is read; the working folder where none is."""
    return Path((info.context or {}).get("recipe_folder", Path()))


def _with_variables(text: str, info: ValidationInfo) -> str:
    """A path in which `$NAME` is what the environment says; only in a recipe that is being read."""
    if "$" not in text or info.context is None or _is_there(_folder_of(info) / text):
        return text
    found = os.path.expandvars(text)
    if unknown := re.search(r"\$\{?(\w+)", found):
        message = f"there is no such place, and the environment has no variable {unknown[1]}"
        raise ValueError(message)
    return found


def _is_there(path: Path) -> bool:
    """Whether there is something at a path.

    Raises:
        ValueError: when nobody can say, since the path is too long or a folder is closed to us.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        message = f"{path}: {error.strerror}"
        raise ValueError(message) from error
    return True


RecipePath = Annotated[
    Path, PlainValidator(_from_recipe_folder), PlainSerializer(str, when_used="json")
]
"""A path, absolute or relative to the recipe that names it, or the URL of a folder on a store."""


def _exists(path: Path, info: ValidationInfo) -> Path:
    if info.context is not None and not path.exists():
        message = "there is no such file or folder"
        raise ValueError(message)
    return path


def _is_file(path: Path, info: ValidationInfo) -> Path:
    if info.context is not None and _exists(path, info).is_dir():
        message = "a file should be there, and it is a folder"
        raise ValueError(message)
    return path


def _is_folder(path: Path, info: ValidationInfo) -> Path:
    if info.context is not None and not _exists(path, info).is_dir():
        message = "a folder should be there, and it is a file"
        raise ValueError(message)
    return path


ExistingFile = Annotated[RecipePath, AfterValidator(_is_file)]
"""A file that is there when a recipe is read; a corpus outlives the files of its recipe."""
ExistingFolder = Annotated[RecipePath, AfterValidator(_is_folder)]
"""The same for a folder."""


def existing_place(value: str, info: ValidationInfo) -> str:
    """A file or folder, relative to the recipe, as an absolute path; another text as it is.

    Raises:
        ValueError: when a recipe names an absolute path that is not there.
    """
    path = Path(os.path.expanduser(_with_variables(value, info)))  # noqa: PTH111
    there = _folder_of(info) / path
    if there.exists():
        return str(there.absolute())
    if path.is_absolute() and info.context is not None:
        message = "there is no such file or folder"
        raise ValueError(message)
    return value
