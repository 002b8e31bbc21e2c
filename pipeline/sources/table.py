"""Tables of captions (CSV, TSV, JSON, Parquet) with paths of images, bytes, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from pipeline.sources import known_names
from pipeline.sources.files import Problem
from pipeline.sources.image_cells import ImageCell, read_image
from pipeline.sources.row_files import PictureSettings, Place, RowFiles
from pipeline.sources.spans import Row
from pipeline.sources.text import Texts


class TableSettings(PictureSettings):
    """`kind: table`: one record a row."""

    kind: Literal["table"]
    name: str = "table"
    caption_columns: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """The first with a text is the caption, the others are further captions under their names. Null
    takes the columns that are captions by their names (`docs/sources.md`), of which the first has
    to hold a text."""
    image_column: str | None = None
    """Paths relative to the file, data URIs or base64, and in Parquet bytes or `{bytes, path}`.
    Null takes the column that is an image by its name; a row without one is text alone."""


class _Pairs(Texts):
    """A row is a caption with its image."""

    def __init__(self, settings: TableSettings) -> None:
        super().__init__(settings, settings.caption_columns)
        self._pictures = settings
        if settings.image_column is not None:
            self.needed.append((settings.image_column,))

    def columns(self, there: Sequence[str]) -> list[str]:
        image = self._image_column(there)
        return [*super().columns(there), *([] if image is None else [image])]

    def image(self, row: Row, place: Place) -> ImageCell | Problem | None:
        column = self._image_column(list(row))
        if column is None:
            return None
        folder = self._pictures.image_folder or place.file.parent
        return read_image(row.get(column), folder, self._pictures.max_image_bytes)

    def _image_column(self, there: Sequence[str]) -> str | None:
        return self._pictures.image_column or known_names.image_column(there)


def open_table(settings: TableSettings) -> RowFiles:
    """The table that the settings describe."""
    return RowFiles(settings.name, settings, _Pairs(settings))
