"""The measure stage: what each picture says of itself, and its CLIP feature; no text is read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from filters.perceptual import perceptual_hash, pixel_hash
from filters.picture import picture_scores
from filters.settings import MeasureSettings
from pipeline import images
from pipeline.engine.schemas import PICTURES
from pipeline.engine.stage import Output, Row, Work
from pipeline.references import image_bytes

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from filters.clip import CrossFitScorers

_RECORD_COLUMNS = ("record_id", "image_id", "image", "image_ref")


class MeasureWorker:
    """Measures and embeds the picture of each record that has one.

    Reads: `records` with pixels.
    Writes: `pictures`, one row a picture.
    Rejects: nothing; `select` applies the thresholds.
    Source: Radford et al., CLIP, arXiv 2103.00020, for the features.
    """

    def __init__(self, settings: MeasureSettings, models: Mapping[str, Path]) -> None:
        self._settings = settings
        self._models = models

    @cached_property
    def _scorers(self) -> CrossFitScorers:
        """Loaded with the first picture: torch and open_clip take seconds."""
        from filters.clip import CrossFitScorers
        from pipeline.device import use_threads

        use_threads(1)
        return CrossFitScorers(self._models["clip"], self._settings.clip)

    def __call__(self, work: Work) -> Output:
        """Measure one part; its batches are cut inside it, whoever else works."""
        records = work.read("records", _RECORD_COLUMNS).to_pylist()
        pictures = [record for record in records if record["image_id"] is not None]
        if not pictures:
            return Output(rows=[])
        contents = image_bytes(pictures)
        size = self._settings.clip.image_size
        rows: list[Row] = []
        pixels: list[np.ndarray] = []
        for record, content in zip(work.each(pictures), contents, strict=True):
            image = images.decode(content)
            ids = {"record_id": record["record_id"], "image_id": record["image_id"]}
            rows.append({**dict.fromkeys(PICTURES.names), **ids, **_measure(image)})
            pixels.append(images.fit_square(image, size))
        work.at(tuple(record["record_id"] for record in pictures))
        features = self._scorers.embed_images([record["image_id"] for record in pictures], pixels)
        for row, feature in zip(rows, features, strict=True):
            row["image_feature"] = feature
        return Output(rows=rows)


def _measure(image: Image.Image) -> Row:
    """The columns that an RGB image decides by itself."""
    return {
        **picture_scores(image)._asdict(),
        "pixel_hash": pixel_hash(image),
        "perceptual_hash": perceptual_hash(image.convert("L")),
    }
