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
        named: dict[str, list[tuple[int, str, str]]] = {row["record_id"]: [] for row in rows}
        for number, (record_id, by_name) in enumerate(texts):
            named[record_id] += [(number, name, text) for name, text in by_name.items()]
        asked = list(named.values())
        scores: list[dict[str, float]] = [{} for _ in texts]
        for pairs, seen, spoken in self._scorers.embed_pairs(
            [row["image_id"] for row in rows],
            pixels,
            [[text for _, _, text in each] for each in asked],
        ):
            for (picture, place), cosine in zip(pairs, (seen * spoken).sum(axis=1), strict=True):
                number, name, _ = asked[picture][place]
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
