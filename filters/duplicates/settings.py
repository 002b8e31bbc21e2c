"""What a recipe may say about duplicates."""

from __future__ import annotations

from pydantic import Field, field_validator

from filters.settings import AnyClipSettings
from pipeline.settings import Settings
from pipeline.sources import SourceSettings


class DuplicateSettings(Settings):
    """What counts as a copy, and which one stays."""

    bytes: bool = True
    """Pictures with the same bytes are copies."""
    pixels: bool = True
    """Pictures with the same pixels are copies, however they are encoded."""
    texts: bool = True
    """Records without a picture are copies when their texts are equal."""
    perceptual: float | None = Field(default=None, gt=0, lt=0.5)
    """Pictures that look alike up to this distance (0 is equal) are copies: in another size or
    quality, in grey, mirrored, framed, cropped or turned a little. 0.15 finds these among
    photographs. Null, since drawings of one style look alike and are no copies."""
    semantic: float | None = Field(default=None, gt=0, lt=0.5)
    """Pictures whose CLIP features differ by up to this distance (one minus the cosine) are copies.
    Null, since how near copies are depends on the model, which has to be a published one."""
    prefer_licences: tuple[str, ...] = ()
    """Of copies, the one with the licence that stands first here stays; then the one with more
    pixels, with the higher `clip_score` of its own caption, with the smaller id."""
    against: tuple[SourceSettings, ...] = ()
    """Evaluation sets: a record whose picture is a copy of one there is left out. They are read
    once; `--refit evaluation` reads them again."""

    @field_validator("against")
    @classmethod
    def _names_differ(cls, against: tuple[SourceSettings, ...]) -> tuple[SourceSettings, ...]:
        names = [source.name for source in against]
        if len(set(names)) < len(names):
            message = "two evaluation sets have the same name: give one another `name`"
            raise ValueError(message)
        return against


class EvaluationSettings(Settings):
    """What decides the pictures of the evaluation sets."""

    against: tuple[SourceSettings, ...]
    """The sets."""
    clip: AnyClipSettings | None
    """The model behind their features; null where no features are compared."""
