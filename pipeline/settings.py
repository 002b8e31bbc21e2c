"""The base of every settings model: what a recipe may say about one part of the system."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Frozen, keyword-only and closed: an unknown key is an error, not a silent no-op.

    A field that changes nothing in a stage's output (a path, a pool size) is declared with
    `Field(exclude=True)`: it then stays out of `model_dump` and so out of the fingerprint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
