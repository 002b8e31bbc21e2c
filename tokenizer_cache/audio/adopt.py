"""Takes a published audio tokenizer into the corpus and measures it on the corpus's sounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from pipeline.device import use_all_cores
from pipeline.engine.stage import FitInputs, Progress
from pipeline.engine.storage import commit_json
from pipeline.errors import UserError
from tokenizer_cache.audio.description import SETTINGS
from tokenizer_cache.audio.published import read_published
from tokenizer_cache.audio.quality import METRICS, measure
from tokenizer_cache.audio.settings import PublishedAudio, PublishedAudioSettings
from tokenizer_cache.audio.tokenizer import load_audio
from tokenizer_cache.audio.train import held_out


def fit(settings: PublishedAudioSettings, inputs: FitInputs, folder: Path) -> Iterator[Progress]:
    """Copy the tokenizer's weights and shape; measure it on held-out sounds.

    Reads `records`. Saves what `train.fit` saves.

    Raises:
        UserError: when the weights are not there or are another model's, or there are no sounds.
    """
    adopted = adopt(settings, folder)
    sounds, split = held_out(inputs, adopted.sampling_rate)
    if not sounds:
        raise UserError(
            "the corpus has no sounds to measure the audio tokenizer on",
            "Check that its sources have sounds.",
        )
    with use_all_cores():
        figures = asdict(measure(load_audio(folder), sounds))
    commit_json(folder / METRICS, {**figures, "split": split, "num_sounds": len(sounds)})
    yield Progress(done=1, total=1, figures=figures)


def adopt(settings: PublishedAudioSettings, folder: Path) -> PublishedAudio:
    """Save a published tokenizer for `load_audio`: what it is does not depend on a corpus.

    Raises:
        UserError: when the weights are not there or are another model's.
    """
    model, adopted = read_published(settings)
    model.save_pretrained(folder)
    commit_json(folder / SETTINGS, adopted.model_dump(mode="json"))
    return adopted
