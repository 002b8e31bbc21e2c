"""Ingest: from a slice of a source to the records table, with every image looked at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, TypeAdapter

from pipeline import images
from pipeline.engine.fingerprint import hash_bytes, unit_interval
from pipeline.engine.parts import Part, SourceRecord, UnreadableRecord, record_id
from pipeline.engine.schemas import reject
from pipeline.engine.stage import Output, Row, Work
from pipeline.settings import Settings
from pipeline.sources import SourceSettings, open_source


class IngestSettings(Settings):
    """Limits on what a source may give: source data is hostile."""

    rows_per_part: int = Field(default=1000, ge=1, exclude=True)
    """Records in a part, about; the unit of work and of retry. Decides names, not content."""
    max_pixels: int = Field(default=images.MAX_PIXELS, ge=1)
    """A larger image is rejected before it is decoded, in pixels."""
    max_caption_characters: int = Field(default=20_000, ge=1)
    """A longer caption is rejected."""
    validation_share: float = Field(default=0.05, ge=0, le=0.5)
    """Share of the images and texts kept for validation, chosen by their hash."""


class IngestWorker:
    """Looks at every record of a slice once and stores its bytes as they are.

    Reads: the slice of the source that the part names.
    Writes: `records`.
    Rejects: `decode-failed`, `decode-too-many-pixels`, `ingest-caption-too-long`, and what the
        source itself cannot give (`ingest-no-caption`, `ingest-image-too-large`).
    Source: the validation split by content hash keeps equal images on one side, so that a duplicate
        cannot leak (as in Lee et al., Deduplicating Training Data, arXiv 2107.06499, section 5).
    """

    def __init__(self, settings: IngestSettings, models: Mapping[str, Path]) -> None:  # noqa: ARG002
        self._settings = settings

    def __call__(self, work: Work) -> Output:
        """The records of one part, in the source's order."""
        part = Part(**work.extra["part"])
        settings: SourceSettings = TypeAdapter(SourceSettings).validate_python(work.extra["source"])
        rows: list[Row] = []
        rejects: list[Row] = []
        for record in open_source(settings).read(part):
            row = self._row(part.source, record)
            (rejects if "reason" in row else rows).append(row)
        return Output(rows=rows, rejects=rejects)

    def _row(self, source: str, record: SourceRecord | UnreadableRecord) -> Row:
        """The record's row, or its reject."""
        identity = record_id(source, record.key)

        def refuse(reason: str, detail: str) -> Row:
            return reject(record_id=identity, stage="ingest", reason=reason, detail=detail)

        if isinstance(record, UnreadableRecord):
            return refuse(record.reason, f"{record.key}: {record.detail}")
        caption = record.caption if isinstance(record.caption, str) else record.caption.decode()
        length, limit = len(caption), self._settings.max_caption_characters
        if length > limit:
            return refuse("ingest-caption-too-long", f"{length} characters, allowed are {limit}")
        width = height = image_id = None
        if record.image is not None:
            try:
                image = images.decode(record.image, max_pixels=self._settings.max_pixels)
            except images.ImageError as error:
                return refuse(error.reason, f"{record.key}: {error}")
            width, height = image.size
            image_id = hash_bytes(record.image)
        # A document stays on one side as a whole: its pieces become one sample.
        chance = unit_interval("split", record.document or image_id or caption)
        return {
            "record_id": identity,
            "source": source,
            "key": record.key,
            "image_id": image_id,
            "image": record.image,
            "image_ref": None,
            "width": width,
            "height": height,
            "caption": caption,
            "more_captions": [],
            "repairs": [],
            "document": record.document,
            "position": record.position,
            "opt_outs": [],
            "licence": record.licence,
            "attribution": record.attribution,
            "split": "validation" if chance < self._settings.validation_share else "train",
            "origin": record.origin,
        }
