"""Embeds texts with the corpus's own CLIP, where it has one: the encoder that needs no download."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from filters.settings import ClipSettings, OpenClipSettings, ScoreSettings
from pipeline.device import use_threads
from pipeline.engine.corpus import MODEL_FILE, Corpus
from pipeline.engine.machine_cache import local_copy
from pipeline.synthesis.diversity import Embed

if TYPE_CHECKING:
    from filters.clip import ClipScorers


def text_encoder(corpus: Corpus) -> Embed | None:
    """The text tower of the first fold's model; None before it is fitted."""
    folder = corpus.models.get("clip")
    if folder is None or not (folder / MODEL_FILE).exists():
        return None
    settings = ScoreSettings.model_validate(corpus.recipe["score"]).clip

    def embed(texts: Sequence[str]) -> np.ndarray:
        from filters.clip import mean_feature

        no_image = ["0" * 8] * len(texts)  # of the first fold
        # One thread gives the same bytes on every machine; next to other work it is far faster.
        with use_threads(1):
            pieces = _scorers(folder, settings).embed_texts(no_image, texts)
        return np.stack([mean_feature(each) for each in pieces])

    return embed


@cache
def _scorers(folder: Path, settings: ClipSettings | OpenClipSettings) -> ClipScorers:
    """Loaded with the first text: torch and open_clip take seconds."""
    from filters.clip import load_scorers

    return load_scorers(local_copy(folder), settings)
