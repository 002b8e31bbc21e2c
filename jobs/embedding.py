"""Embeds texts with the corpus's own CLIP, where it has one: the encoder that needs no download."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from filters.settings import ClipSettings
from pipeline.device import use_threads
from pipeline.engine.corpus import MODEL_FILE, Corpus
from pipeline.engine.storage import local_copy
from pipeline.synthesis.diversity import Embed

if TYPE_CHECKING:
    import numpy as np

    from filters.clip import ClipScorer


def text_encoder(corpus: Corpus) -> Embed | None:
    """The text tower of the first fold's model; None before it is fitted."""
    folder = corpus.models.get("clip")
    if folder is None or not (folder / MODEL_FILE).exists():
        return None
    settings = ClipSettings.model_validate(corpus.recipe["score"]["clip"])

    def embed(texts: Sequence[str]) -> np.ndarray:
        return _scorer(folder, settings).embed_texts(texts)

    return embed


@cache
def _scorer(folder: Path, settings: ClipSettings) -> ClipScorer:
    """Loaded with the first text: torch and open_clip take seconds."""
    from filters.clip import ClipScorer, weights_name

    use_threads(1)  # the same bytes on every machine; beside other work also far faster
    return ClipScorer(local_copy(folder) / weights_name(0), settings)
