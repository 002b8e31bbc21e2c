"""The pictures of the evaluation sets, as a corpus's pictures are compared with them.

They are read once and kept, as what is fitted is: a corpus that grows every night does not decode
its evaluation sets every night.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from filters.duplicates.settings import EvaluationSettings
from filters.perceptual import perceptual_hash, pixel_hash
from filters.settings import ClipSettings
from pipeline import images
from pipeline.engine.parts import SourceRecord, UnreadableRecord
from pipeline.engine.stage import FitInputs, Progress, Row
from pipeline.engine.tables import write_table
from pipeline.errors import RejectError, UserError
from pipeline.sources import open_source

EVALUATION = "evaluation"
"""Name of the model that holds them."""
PICTURES_FILE = "pictures.parquet"

_ROWS_PER_PART = 1000

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
    rows: list[Row] = []
    unreadable = 0
    for named in settings.against:
        source = open_source(named)
        parts = list(source.parts(_ROWS_PER_PART, {}))
        before = len(rows)
        for done, part in enumerate(parts, start=1):
            pictures: list[tuple[str, Image.Image]] = []
            for record in source.read(part):
                try:
                    pictures += _picture(named.name, record)
                except RejectError:
                    unreadable += 1
            rows += _describe(pictures, settings.clip, inputs)
            figures = {"pictures": len(rows), "unreadable": unreadable}
            yield Progress(done=done, total=len(parts), figures=figures)
        if len(rows) == before:
            message = f"duplicates.against: no picture of {named.name!r} can be read"
            raise UserError(
                message, "A source gives no picture without a caption: see its settings."
            )
    write_table(folder / PICTURES_FILE, rows, _PICTURES)


def _picture(name: str, record: SourceRecord | UnreadableRecord) -> list[tuple[str, Image.Image]]:
    """The record's name and picture; nothing for a text.

    Raises:
        RejectError: when it cannot be read.
    """
    if isinstance(record, UnreadableRecord):
        raise images.ImageError(record.reason, record.detail)
    if record.image is None:
        return []
    return [(f"{name}/{record.key}", images.decode(record.image))]


def _describe(
    pictures: Sequence[tuple[str, Image.Image]], clip: ClipSettings | None, inputs: FitInputs
) -> list[Row]:
    """The rows of some pictures."""
    hashes = [pixel_hash(image) for _, image in pictures]
    features: Iterable[np.ndarray | None] = [None] * len(pictures)
    if clip is not None and pictures:
        from filters.clip import CrossFitScorers

        squares = [images.fit_square(image, clip.image_size) for _, image in pictures]
        features = CrossFitScorers(inputs.models["clip"], clip).embed_images(hashes, squares)
    return [
        {
            "item": item,
            "pixel_hash": pixels,
            "perceptual_hash": perceptual_hash(image.convert("L")),
            "image_feature": feature,
        }
        for (item, image), pixels, feature in zip(pictures, hashes, features, strict=True)
    ]
