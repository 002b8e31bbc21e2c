"""Tables of captions (CSV, TSV, JSON lines, Parquet) with paths of images, bytes, or none."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.sources.files import Problem
from pipeline.sources.row_files import PictureSettings, Place, RowFiles, read_image
from pipeline.sources.spans import Row
from pipeline.sources.text import Texts


class TableSettings(PictureSettings):
    """`kind: table`: one record a row."""

    kind: Literal["table"]
    name: str = "table"
    caption_columns: tuple[str, ...] = Field(default=("caption",), min_length=1)
    """The first with a text is the caption, the others are further captions under their names."""
    image_column: str | None = None
    """Paths relative to the file, or in Parquet bytes or `{bytes, path}`; null for text alone."""


class _Pairs(Texts):
    """A row is a caption with its image."""

    def __init__(self, settings: TableSettings, image_column: str) -> None:
        super().__init__(settings, settings.caption_columns, image_column)
        self._pictures = settings
        self._image_column = image_column

    def image(self, row: Row, place: Place) -> tuple[bytes | None, str | None] | Problem:
        return read_image(row.get(self._image_column), place.file, self._pictures)


def open_table(settings: TableSettings) -> RowFiles:
    """The table that the settings describe."""
    meaning = (
        Texts(settings, settings.caption_columns)
        if settings.image_column is None
        else _Pairs(settings, settings.image_column)
    )
    return RowFiles(settings.name, settings, meaning)
