"""The pictures of the evaluation sets, as a corpus's pictures are compared with them.

They are read once and kept, as what is fitted is: a corpus that grows every night does not decode
its evaluation sets every night.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from PIL import Image

from filters.duplicates.settings import EvaluationSettings
from filters.perceptual import perceptual_hash, pixel_hash
from pipeline import images
from pipeline.device import use_all_cores
from pipeline.engine.parts import SourceRecord, UnreadableRecord
from pipeline.engine.stage import FitInputs, Progress, Row
from pipeline.engine.tables import write_table
from pipeline.errors import RejectError, UserError
from pipeline.sources import open_source

if TYPE_CHECKING:
    from filters.clip import ClipScorers

EVALUATION = "evaluation"
"""Name of the model that holds them."""
PICTURES_FILE = "pictures.parquet"

_ROWS_PER_PART = 1000
_BATCH_SIZE = 64
"""Decoded pictures that are in memory at once."""

_PICTURES = pa.schema(
    [
        pa.field("item", pa.string(), nullable=False),
        pa.field("pixel_hash", pa.string(), nullable=False),
        pa.field("perceptual_hash", pa.binary()),
        pa.field("image_feature", pa.list_(pa.float32())),
    ]
)


def fit(settings: EvaluationSettings, inputs: FitInputs, folder: Path) -> Iterator[Progress]:
    """Write `pictures.parquet`: a row for each picture of the sets that can be read."""
    scorers = None
    if settings.clip is not None:
        from filters.clip import load_scorers

        scorers = load_scorers(inputs.models["clip"], settings.clip)
    rows: list[Row] = []
    unreadable: list[str] = []
    for named in settings.against:
        source = open_source(named)
        parts = list(source.parts(_ROWS_PER_PART, {}))
        before = len(rows)
        for done, part in enumerate(parts, start=1):
            pictures = _pictures(named.name, source.read(part), unreadable)
            while batch := list(islice(pictures, _BATCH_SIZE)):
                rows += _describe(batch, scorers)
            figures = {"pictures": len(rows), "unreadable": len(unreadable)}
            yield Progress(done=done, total=len(parts), figures=figures)
        if len(rows) == before:
            message = f"duplicates.against: no picture of {named.name!r} can be read"
            raise UserError(
                message, "A source gives no picture without a caption: see its settings."
            )
    write_table(folder / PICTURES_FILE, rows, _PICTURES)


def _pictures(
    name: str, records: Iterable[SourceRecord | UnreadableRecord], unreadable: list[str]
) -> Iterator[tuple[str, Image.Image]]:
    """The name and picture of each record that has one; those that cannot be read are noted."""
    for record in records:
        if isinstance(record, UnreadableRecord):
            unreadable.append(record.key)
        elif record.image is not None:
            try:
                yield f"{name}/{record.key}", images.decode(record.image)
            except RejectError:
                unreadable.append(record.key)


def _describe(
    pictures: Sequence[tuple[str, Image.Image]], scorers: ClipScorers | None
) -> list[Row]:
    """The rows of some pictures."""
    hashes = [pixel_hash(image) for _, image in pictures]
    features: Iterable[np.ndarray | None] = [None] * len(pictures)
    if scorers is not None:
        prepared = [scorers.prepare(image) for _, image in pictures]
        with use_all_cores():
            features = scorers.embed_images(hashes, prepared)
    return [
        {
            "item": item,
            "pixel_hash": pixels,
            "perceptual_hash": perceptual_hash(image.convert("L")),
            "image_feature": feature,
        }
        for (item, image), pixels, feature in zip(pictures, hashes, features, strict=True)
    ]
