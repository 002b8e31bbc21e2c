"""The measure stage: what each picture says of itself, and its CLIP feature; no text is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filters.heads import read_head
from filters.perceptual import perceptual_hash, pixel_hash
from filters.picture import picture_scores
from filters.settings import MeasureSettings
from pipeline import images
from pipeline.ahead import ahead
from pipeline.device import use_threads
from pipeline.engine.schemas import PICTURES
from pipeline.engine.stage import Output, Row, Work
from pipeline.references import image_bytes

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from filters.clip import ClipScorers

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
        self._heads = {name: read_head(path) for name, path in settings.heads.items()}

    @cached_property
    def _scorers(self) -> ClipScorers:
        """Loaded with the first picture: torch and open_clip take seconds."""
        from filters.clip import load_scorers

        return load_scorers(self._models["clip"], self._settings.clip)

    def __call__(self, work: Work) -> Output:
        """Measure one part; its batches are cut inside it, whoever else works.

        An image that several records have is looked at once.
        """
        records = work.read("records", _RECORD_COLUMNS).to_pylist()
        pictures = [record for record in records if record["image_id"] is not None]
        rows = self._rows(work, pictures) if pictures else {}
        return Output(
            rows=[
                {**rows[record["image_id"]], "record_id": record["record_id"]}
                for record in pictures
            ]
        )

    @use_threads(1)
    def _rows(self, work: Work, pictures: Sequence[Mapping[str, Any]]) -> dict[str, Row]:
        """The row of each image that these records have."""
        from filters.clip import BATCH_SIZE

        scorers = self._scorers
        distinct: dict[str, Mapping[str, Any]] = {}
        for record in pictures:
            distinct.setdefault(record["image_id"], record)
        rows: dict[str, Row] = {}
        for found, prepared in ahead(partial(self._look, work), [*distinct.values()], BATCH_SIZE):
            features = scorers.embed_images(list(found), prepared)
            judged = {name: head(features) for name, head in self._heads.items()}
            for place, (image_id, row) in enumerate(found.items()):
                scores = {name: values[place] for name, values in judged.items()}
                rows[image_id] = {**row, **scores, "image_feature": features[place]}
        return rows

    def _look(
        self, work: Work, records: Sequence[Mapping[str, Any]]
    ) -> tuple[dict[str, Row], list[Tensor]]:
        """What each image says of itself, and all of them as CLIP wants them."""
        rows: dict[str, Row] = {}
        prepared = []
        for record, content in zip(work.each(records), image_bytes(records), strict=True):
            image = images.decode(content)
            image_id = record["image_id"]
            rows[image_id] = {
                **dict.fromkeys(PICTURES.names), "image_id": image_id, **_measure(image)
            }  # fmt: skip
            prepared.append(self._scorers.prepare(image))
        return rows, prepared


def _measure(image: Image.Image) -> Row:
    """The columns that an RGB image decides by itself."""
    return {
        **picture_scores(image)._asdict(),
        "pixel_hash": pixel_hash(image),
        "perceptual_hash": perceptual_hash(image.convert("L")),
    }
