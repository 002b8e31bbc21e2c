"""CLIP as a critic of the synthesis: scores texts with their pictures while they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from filters.settings import ClipSettings
from pipeline import images
from pipeline.engine.corpus import MODEL_FILE
from pipeline.engine.stage import Work
from pipeline.engine.storage import local_copy, read_json
from pipeline.references import image_bytes
from pipeline.synthesis.engine import EngineDataflow
from pipeline.synthesis.settings import SynthesisSettings

if TYPE_CHECKING:
    from filters.clip import CrossFitScorers

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
        ids = {row["record_id"]: row["image_id"] for row in rows}
        seen = dict(zip(ids, self._scorers.embed_images(list(ids.values()), pixels), strict=True))
        asked = [
            (number, name, record_id, text)
            for number, (record_id, by_name) in enumerate(texts)
            for name, text in by_name.items()
        ]
        spoken = self._scorers.embed_texts(
            [ids[record_id] for _, _, record_id, _ in asked], [text for *_, text in asked]
        )
        scores: list[dict[str, float]] = [{} for _ in texts]
        for (number, name, record_id, _), text in zip(asked, spoken, strict=True):
            scores[number][name] = float(seen[record_id] @ text)
        return scores

    @cached_property
    def _settings(self) -> ClipSettings:
        return ClipSettings.model_validate(read_json(self._folder / MODEL_FILE)["settings"])

    @cached_property
    def _scorers(self) -> CrossFitScorers:
        from filters.clip import CrossFitScorers
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
