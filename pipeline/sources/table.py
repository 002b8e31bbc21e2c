"""Tables of captions (CSV, TSV, JSON lines, Parquet) with paths of images, bytes, or none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from pipeline.engine.parts import SourceRecord, UnreadableRecord
from pipeline.sources.captions import captions_of
from pipeline.sources.files import Problem
from pipeline.sources.row_files import (
    PictureSettings,
    Place,
    RowFiles,
    own_key,
    provenance,
    read_image,
)
from pipeline.sources.spans import Row


class TableSettings(PictureSettings):
    """`kind: table`: one record a row."""

    kind: Literal["table"]
    name: str = "table"
    caption_columns: list[str] = Field(default=["caption"], min_length=1)
    """The first with a text is the caption, the others are further captions under their names."""
    image_column: str | None = None
    """Paths relative to the file, or in Parquet bytes or `{bytes, path}`; null for text alone."""


class _Pairs:
    """A row is a caption with its image."""

    def __init__(self, settings: TableSettings) -> None:
        self._settings = settings
        image = [settings.image_column] if settings.image_column else []
        self.columns = [*settings.caption_columns, *image, *settings.columns()]
        self.listed = [settings.key_column] if settings.key_column else []

    def key(self, row: Row) -> str | None:
        return own_key(row, self._settings.key_column)

    def num_records(self, row: Row) -> int:  # noqa: ARG002
        return 1

    def records(self, row: Row, place: Place) -> Iterator[SourceRecord | UnreadableRecord]:
        captions = captions_of(row, self._settings.caption_columns)
        if isinstance(captions, Problem):
            yield UnreadableRecord(key=place.key, reason=captions.reason, detail=captions.detail)
            return
        image: tuple[bytes | None, str | None] | Problem = (None, None)
        if self._settings.image_column is not None:
            image = read_image(row.get(self._settings.image_column), place.file, self._settings)
        if isinstance(image, Problem):
            yield UnreadableRecord(key=place.key, reason=image.reason, detail=image.detail)
            return
        yield SourceRecord(
            key=place.key,
            caption=captions.caption,
            more_captions=captions.more,
            image=image[0],
            image_ref=image[1],
            **provenance(row, self._settings, place.key),
        )


def open_table(settings: TableSettings) -> RowFiles:
    """The table that the settings describe."""
    return RowFiles(settings.name, settings, _Pairs(settings))
