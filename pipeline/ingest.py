"""Ingest: from a slice of a source to the records table; every image and sound is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, TypeAdapter

from pipeline.engine.fingerprint import hash_bytes, unit_interval
from pipeline.engine.forgotten import Forgotten, read_forgotten
from pipeline.engine.parts import Part, SourceRecord, UnreadableRecord, record_id
from pipeline.engine.schemas import ORIGINAL, reject
from pipeline.engine.stage import Output, Row, Work
from pipeline.engine.storage import to_path
from pipeline.errors import RejectError
from pipeline.images import MAX_PIXELS, PILLOW_MAX_PIXELS, Limits, inspect
from pipeline.rights import OptOutError, opt_outs
from pipeline.settings import Settings
from pipeline.sounds import Sound, read_sound
from pipeline.sources import SourceSettings, open_source
from pipeline.texts import TextError, clean


class IngestSettings(Settings):
    """Limits on what a source may give: source data is hostile."""

    rows_per_part: int = Field(default=1000, ge=1, exclude=True)
    """Records in a part, about; the unit of work and of retry. Decides names, not content."""
    images: Literal["copy", "reference"] = "copy"
    """`copy` stores the bytes in the records table; `reference` only says where they lie in the
    source, which then must stay as it is. Images that a source makes, and sounds, are copied all
    the same."""
    opt_outs: Literal["reject", "keep"] = "reject"
    """What to do with an image whose owner does not want it mined (`X-Robots-Tag`, IPTC's data
    mining property, a C2PA or CAWG assertion). The signals stay on a record that is kept."""
    max_pixels: int = Field(default=MAX_PIXELS, ge=1, le=PILLOW_MAX_PIXELS)
    """A larger image is rejected before it is decoded, in pixels."""
    min_side: int = Field(default=4, ge=1)
    """An image whose shorter side is shorter is rejected, in pixels: tracking pixels and rules."""
    max_aspect_ratio: float = Field(default=20, ge=1)
    """An image whose longer side is more times its shorter side is rejected: borders and bars."""
    min_sound_s: float = Field(default=0.1, ge=0)
    """A shorter sound is rejected, in seconds."""
    max_sound_s: float = Field(default=30, gt=0)
    """A longer sound is rejected, in seconds."""
    max_caption_characters: int = Field(default=20_000, ge=1)
    """A longer caption is rejected."""
    validation_share: float = Field(default=0.05, ge=0, le=0.5)
    """Share of the images and texts kept for validation, chosen by their hash."""


class IngestWorker:
    """Looks at every record of a slice once and stores its bytes as they are.

    Reads: the slice of the source that the part names.
    Writes: `records`.
    Rejects: `decode-…` for an image (`pipeline.images`), `sound-…` for a sound (`pipeline.sounds`),
        `ingest-caption-…` for a text
        (`pipeline.texts`), `ingest-opted-out`, `ingest-duplicate-key`, what the source itself
        cannot give, and what was asked to be forgotten (`ingest-forgotten`, without a word about
        the content). A further caption that will not do is a row with the variant_id
        `original-NAME`, and its record stays.
    Source: the validation split by content hash keeps equal images on one side, so that a duplicate
        cannot leak (as in Lee et al., Deduplicating Training Data, arXiv 2107.06499, section 5).
    """

    def __init__(self, settings: IngestSettings, models: Mapping[str, Path]) -> None:  # noqa: ARG002
        self._settings = settings
        self._forgotten: Forgotten | None = None
        self._limits = Limits(
            max_pixels=settings.max_pixels,
            min_side=settings.min_side,
            max_aspect_ratio=settings.max_aspect_ratio,
        )

    def __call__(self, work: Work) -> Output:
        """The records of one part, in the source's order."""
        part = Part(**work.extra["part"])
        settings: SourceSettings = TypeAdapter(SourceSettings).validate_python(work.extra["source"])
        if self._forgotten is None:  # nobody forgets while a run has the corpus
            self._forgotten = _forgotten(work)
        rows: list[Row] = []
        rejects: list[Row] = []
        times_seen: dict[str, int] = {}
        for record in _records(settings, part, work):
            times = times_seen[record.key] = times_seen.get(record.key, 0) + 1
            if times > 1:
                # Under a name of its own, so that it is not counted as the record that it repeats.
                identity = record_id(part.source, f"{record.key}#{times}")
                detail = f"{record.key}: the key's occurrence number {times}; the first one stays"
                rejects.append(_refuse(identity, "ingest-duplicate-key", detail))
                continue
            identity = record_id(part.source, record.key)
            work.at((identity,))
            if identity in work.quarantined:
                continue
            if _is_forgotten(self._forgotten, part.source, identity, record):
                rejects.append(_refuse(identity, "ingest-forgotten", None))
                continue
            if isinstance(record, UnreadableRecord):
                rejects.append(_refuse(identity, record.reason, f"{record.key}: {record.detail}"))
                continue
            try:
                row, further_rejects = self._row(part.source, identity, record)
            except RejectError as error:
                rejects.append(_refuse(identity, error.reason, f"{record.key}: {error}"))
                continue
            rows.append(row)
            rejects += further_rejects
        return Output(rows=rows, rejects=rejects)

    def _row(self, source: str, identity: str, record: SourceRecord) -> tuple[Row, list[Row]]:
        """The record's row, and the rejects of its further captions.

        Raises:
            RejectError: when the record as a whole will not do.
        """
        limit = self._settings.max_caption_characters
        signals = opt_outs(record.image, record.signals)
        if signals and self._settings.opt_outs == "reject":
            raise OptOutError(signals)
        caption = clean(record.caption, max_characters=limit)
        repairs = list(caption.repairs)
        width = height = image_id = None
        if record.image is not None:
            decoded = inspect(record.image, self._limits)
            width, height = decoded.image.size
            image_id = hash_bytes(record.image)
            repairs += decoded.repairs
        sound = None if record.sound is None else self._sound(record.sound)
        repairs += sound.repairs if sound else ()
        sound_id = None if record.sound is None else hash_bytes(record.sound)
        further, rejects = [], []
        for name, raw in sorted(record.more_captions.items()):
            try:
                text = clean(raw, max_characters=limit)
            except TextError as error:
                variant = f"{ORIGINAL}-{name}"
                rejects.append(_refuse(identity, error.reason, f"{record.key}: {error}", variant))
            else:
                further.append({"name": name, "text": text.text})
                repairs += text.repairs
        is_copied = self._settings.images == "copy" or record.image_ref is None
        # A document stays on one side as a whole: its pieces become one sample.
        chance = unit_interval("split", record.document or image_id or sound_id or caption.text)
        row: Row = {
            "record_id": identity,
            "source": source,
            "key": record.key,
            "image_id": image_id,
            "image": record.image if is_copied else None,
            "image_ref": None if is_copied else record.image_ref,
            "width": width,
            "height": height,
            "sound_id": sound_id,
            "sound": record.sound,
            "sampling_rate": sound and sound.sampling_rate,
            "duration_s": sound and sound.duration_s,
            "caption": caption.text,
            "more_captions": further,
            "repairs": sorted(set(repairs)),
            "document": record.document,
            "position": record.position,
            "opt_outs": signals,
            "licence": record.licence,
            "attribution": record.attribution,
            "split": "validation" if chance < self._settings.validation_share else "train",
            "origin": record.origin,
        }
        return row, rejects

    def _sound(self, content: bytes) -> Sound:
        """A sound that may be used; raises a RejectError for another one."""
        limits = self._settings
        return read_sound(content, min_s=limits.min_sound_s, max_s=limits.max_sound_s)


def _records(
    settings: SourceSettings, part: Part, work: Work
) -> Iterator[SourceRecord | UnreadableRecord]:
    """What a source gives for a part; what fails while it reads on is no fault of the last one."""
    last = "its start"
    records = iter(open_source(settings).read(part))
    while True:
        work.at(())
        try:
            record = next(records, None)
        except Exception as error:
            error.add_note(f"while the source {part.source} was read on from {last}")
            raise
        if record is None:
            return
        last = record.key
        yield record


def _forgotten(work: Work) -> Forgotten:
    """What the corpus has been asked to forget; nothing where the part names no list."""
    path = work.extra.get("forgotten")
    return read_forgotten(to_path(path).parent) if path else Forgotten()


def _is_forgotten(
    forgotten: Forgotten, source: str, identity: str, record: SourceRecord | UnreadableRecord
) -> bool:
    """Whether a record must not come back."""
    image_id = origin = None
    if isinstance(record, SourceRecord):
        origin = record.origin
        image_id = None if record.image is None else hash_bytes(record.image)
    return forgotten.covers(
        source=source, key=record.key, record_id=identity, image_id=image_id, origin=origin
    )


def _refuse(identity: str, reason: str, detail: str | None, variant: str | None = None) -> Row:
    return reject(
        record_id=identity, stage="ingest", reason=reason, detail=detail, variant_id=variant
    )
