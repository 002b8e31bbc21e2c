"""CLIP as a critic of the synthesis: scores texts with their pictures while they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter

from filters.settings import AnyClipSettings, ClipSettings, OpenClipSettings
from pipeline import images
from pipeline.ahead import ahead
from pipeline.device import use_threads
from pipeline.engine.corpus import MODEL_FILE
from pipeline.engine.machine_cache import local_copy
from pipeline.engine.stage import Work
from pipeline.engine.storage import read_json
from pipeline.references import image_bytes
from pipeline.synthesis.engine import EngineDataflow
from pipeline.synthesis.settings import SynthesisSettings

if TYPE_CHECKING:
    from torch import Tensor

    from filters.clip import ClipScorers

_COLUMNS = ("record_id", "image_id", "image", "image_ref")


class ClipCritic:
    """The cosines of texts and their record's picture, by the model that has not seen the pair."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = f"clip@{folder.name}"

    @use_threads(1)
    def __call__(
        self, work: Work, texts: Sequence[tuple[str, Mapping[str, str]]]
    ) -> list[dict[str, float]]:
        """Score some texts of a part.

        Args:
            work: the part.
            texts: record ids, each with texts by name.

        Returns:
            For each, the scores by the same names.
        """
        wanted = {record_id for record_id, _ in texts}
        rows = [
            row for row in work.read("records", _COLUMNS).to_pylist() if row["record_id"] in wanted
        ]
        from filters.clip import BATCH_SIZE

        scorers = self._scorers
        ids = {row["record_id"]: row["image_id"] for row in rows}
        prepared = ahead(self._prepare, rows, BATCH_SIZE)
        features = [scorers.embed_images(*batch) for batch in prepared]
        seen = dict(zip(ids, np.concatenate(features), strict=True))
        asked = [
            (number, name, record_id, text)
            for number, (record_id, by_name) in enumerate(texts)
            for name, text in by_name.items()
        ]
        spoken = scorers.embed_texts(
            [ids[record_id] for _, _, record_id, _ in asked], [text for *_, text in asked]
        )
        scores: list[dict[str, float]] = [{} for _ in texts]
        for (number, name, record_id, _), pieces in zip(asked, spoken, strict=True):
            scores[number][name] = float((pieces @ seen[record_id]).mean())
        return scores

    def _prepare(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[Tensor]]:
        """The ids of the images, and each as CLIP wants it."""
        pictures = (images.decode(content) for content in image_bytes(rows))
        return [row["image_id"] for row in rows], [*map(self._scorers.prepare, pictures)]

    @cached_property
    def _scorers(self) -> ClipScorers:
        from filters.clip import load_scorers

        settings: TypeAdapter[ClipSettings | OpenClipSettings] = TypeAdapter(AnyClipSettings)
        found = settings.validate_python(read_json(self._folder / MODEL_FILE)["settings"])
        return load_scorers(local_copy(self._folder), found)


class ScoringDataflow(EngineDataflow):
    """The synthesis whose captions CLIP has to take, too.

    Reads: records.
    Writes: answers.
    Rejects: nothing; `synthesize` judges the answers.
    Source: none.
    """

    def __init__(self, settings: SynthesisSettings, models: Mapping[str, Path]) -> None:
        super().__init__(settings, models)
        self.scorer = ClipCritic(models["clip"])
