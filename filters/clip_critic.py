"""CLIP as a critic of the synthesis: scores texts with their pictures while they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from filters.settings import ClipSettings
from pipeline import images
from pipeline.engine.corpus import MODEL_FILE
from pipeline.engine.stage import Work
from pipeline.engine.storage import local_copy, read_json
from pipeline.references import image_bytes
from pipeline.synthesis.engine import EngineDataflow
from pipeline.synthesis.settings import SynthesisSettings

if TYPE_CHECKING:
    from filters.clip_bootstrap import CrossFitScorers

_COLUMNS = ("record_id", "image_id", "image", "image_ref")


class ClipCritic:
    """The cosines of texts and their record's picture, by the model that has not seen the pair."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = f"clip@{folder.name}"

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
        size = self._settings.image_size
        pixels = [images.fit_square(images.decode(content), size) for content in image_bytes(rows)]
        by_record: dict[str, list[int]] = {}
        for number, (record_id, _) in enumerate(texts):
            by_record.setdefault(record_id, []).append(number)
        scores: list[dict[str, float]] = [{} for _ in texts]
        for scorer, chosen in self._scorers.groups([row["image_id"] for row in rows]):
            embedded = scorer.embed_images(np.stack([pixels[index] for index in chosen]))  # (B, D)
            pairs = [
                (place, number, name, text)
                for place, index in enumerate(chosen)
                for number in by_record[rows[index]["record_id"]]
                for name, text in texts[number][1].items()
            ]
            spoken = scorer.embed_texts([text for *_, text in pairs])  # (pairs, D)
            cosines = (embedded[[place for place, *_ in pairs]] * spoken).sum(axis=1)
            for (_, number, name, _), cosine in zip(pairs, cosines, strict=True):
                scores[number][name] = float(cosine)
        return scores

    @cached_property
    def _settings(self) -> ClipSettings:
        return ClipSettings.model_validate(read_json(self._folder / MODEL_FILE)["settings"])

    @cached_property
    def _scorers(self) -> CrossFitScorers:
        from filters.clip_bootstrap import CrossFitScorers
        from pipeline.device import use_threads

        use_threads(1)
        return CrossFitScorers(local_copy(self._folder), self._settings)


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
