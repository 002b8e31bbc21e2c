"""Interleaved documents: texts and pictures in turn, in the order in which a page had them.

A document is a row of JSON lines or Parquet: two lists of one length, null in one where the other
has something (as in OBELICS, arXiv 2306.16527), or one list of `{type: text|image, ...}`. Each
picture and the text after it become a record, and so does each text that follows none; all keep
their document and their place in it, so that shards can put them together again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.engine.parts import SourceRecord, UnreadableRecord
from pipeline.sources.files import Problem, as_text, kind_of
from pipeline.sources.image_cells import ImageCell, read_image
from pipeline.sources.row_files import (
    PictureSettings,
    Place,
    RowFiles,
    own_key,
    provenance,
)
from pipeline.sources.spans import Row


class InterleavedSettings(PictureSettings):
    """`kind: interleaved`: documents of texts and pictures, one a row."""

    kind: Literal["interleaved"]
    name: str = "interleaved"
    texts_column: str = "texts"
    """A list of texts, with null where a picture stands."""
    images_column: str = "images"
    """A list of pictures (paths, or in Parquet bytes), with null where a text stands."""
    segments_column: str = "segments"
    """Or one list of `{type: text, text: ...}` and `{type: image, image: ...}` in its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """A picture and the text after it, or one of them alone."""

    image: object = None
    text: str | None = None


class _Documents:
    """A row is a document."""

    def __init__(self, settings: InterleavedSettings) -> None:
        self._settings = settings
        self._content = [settings.texts_column, settings.images_column, settings.segments_column]
        self.needed = [
            (settings.segments_column, settings.texts_column),
            (settings.segments_column, settings.images_column),
            *((name,) for name in settings.columns()),
        ]
        # The number of a document's records is known only when it is read, so listing reads it.
        self.listed = [*self._content, *settings.columns()]

    def columns(self, there: Sequence[str]) -> list[str]:
        return [*self._content, *self._settings.columns_among(there)]

    def key(self, row: Row) -> str | None:
        return own_key(row, self._settings.key_column)

    def num_records(self, row: Row) -> int:
        pieces = _pieces(row, self._settings)
        return 1 if isinstance(pieces, Problem) else len(pieces)

    def records(self, row: Row, place: Place) -> Iterator[SourceRecord | UnreadableRecord]:
        pieces = _pieces(row, self._settings)
        if isinstance(pieces, Problem):
            yield UnreadableRecord(key=place.key, reason=pieces.reason, detail=pieces.detail)
            return
        for position, piece in enumerate(pieces):
            yield self._record(row, piece, place, position)

    def _record(
        self, row: Row, piece: _Piece, place: Place, position: int
    ) -> SourceRecord | UnreadableRecord:
        key = f"{place.key}/{position}"
        if piece.text is None:
            detail = "no text follows the picture"
            return UnreadableRecord(key=key, reason="ingest-no-caption", detail=detail)
        image: ImageCell | Problem | None = None
        if piece.image is not None:
            folder = self._settings.image_folder or place.file.parent
            image = read_image(piece.image, folder, self._settings.max_image_bytes)
        if isinstance(image, Problem):
            return UnreadableRecord(key=key, reason=image.reason, detail=image.detail)
        return SourceRecord(
            key=key,
            caption=as_text(piece.text.strip()),
            image=image.content if image else None,
            image_ref=image.path if image else None,
            document=place.key,
            position=position,
            **provenance(row, self._settings, place.key),
        )


def open_interleaved(settings: InterleavedSettings) -> RowFiles:
    """The documents that the settings describe."""
    return RowFiles(settings.name, settings, _Documents(settings))


def _pieces(row: Row, settings: InterleavedSettings) -> list[_Piece] | Problem:
    """The pieces of a document in order, at least one."""
    segments = _segments(row, settings)
    if isinstance(segments, Problem):
        return segments
    pieces: list[_Piece] = []
    image: object = None
    for kind, value in segments:
        if kind == "text" and isinstance(value, str):
            if value.strip():
                pieces.append(_Piece(image=image, text=value))
                image = None
        elif kind == "image" and isinstance(value, str | bytes | dict | list):
            if image is not None:
                pieces.append(_Piece(image=image))
            image = value
        else:
            known = kind in {"text", "image"}
            return _malformed(
                f"a segment's {kind} is {kind_of(value)}"
                if known
                else f"a segment of type {kind!r}"
            )
    if image is not None:
        pieces.append(_Piece(image=image))
    return pieces or Problem(reason="ingest-document-empty", detail="no text and no picture")


def _segments(row: Row, settings: InterleavedSettings) -> list[tuple[str, object]] | Problem:
    """The document as (`text` or `image`, value) in order."""
    listed = row.get(settings.segments_column)
    if listed is not None:
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            return _malformed(f"{settings.segments_column} is not a list of objects")
        return [(str(kind := each.get("type")), each.get(kind)) for each in listed]
    texts, images = row.get(settings.texts_column), row.get(settings.images_column)
    if not isinstance(texts, list):
        return _malformed(f"{settings.texts_column} is {kind_of(texts)}, not a list")
    if not isinstance(images, list):
        return _malformed(f"{settings.images_column} is {kind_of(images)}, not a list")
    if len(texts) != len(images):
        return _malformed(f"{len(texts)} texts and {len(images)} images: one needs null for each")
    segments: list[tuple[str, object]] = []
    for text, image in zip(texts, images, strict=True):
        if image is not None:
            segments.append(("image", image))
        if text is not None:
            segments.append(("text", text))
    return segments


def _malformed(detail: str) -> Problem:
    return Problem(reason="ingest-document-malformed", detail=detail)
