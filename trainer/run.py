"""A run: the folder that a training fills, and all that is needed to use its model elsewhere.

- `recipe.yaml`: the recipe as it was resolved; its caller writes it
- `vocabulary.json`: the id space
- `tokenizers/text`, `vq` and `audio`: copies of the corpus's tokenizers
- `checkpoint/step-NNNNNN`: weights, their average, optimiser state, and where the loader is
- `metrics.jsonl`: one line a step, some with the loss of held-out rows
- `evaluation.json`: what `evaluate` found
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.device import best_device
from pipeline.engine.storage import commit_json, committing_folder, read_json_lines
from pipeline.errors import UserError
from tokenizer_cache.audio.tokenizer import AudioTokenizer, load_audio
from tokenizer_cache.text import TextTokenizer, load_text
from tokenizer_cache.vocabulary import Vocabulary, read_vocabulary
from tokenizer_cache.vq.tokenizer import VQTokenizer, load_vq
from trainer.data.batch import build_model
from trainer.data.sequence import Segment, Writer, codes_segment, text_segment
from trainer.model.decoder import Decoder
from trainer.settings import TrainSettings
from trainer.train.checkpoint import best_checkpoint, read_average, read_state

METRICS = "metrics.jsonl"
EVALUATION = "evaluation.json"

VOCABULARY = "vocabulary.json"

_TOKENIZERS = "tokenizers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A trained model with its tokenizers.

    Attributes:
        folder: where it lies.
        settings: what it was trained with.
        step: optimiser steps behind the weights.
        model: the decoder, in evaluation mode on `device`.
        vocabulary: the id space.
        text: the text tokenizer.
        vq: the image tokenizer; None where the corpus has no pictures.
        audio: the audio tokenizer; None where the corpus has no sounds.
        device: where the model is.
    """

    folder: Path
    settings: TrainSettings
    step: int
    model: Decoder
    vocabulary: Vocabulary
    text: TextTokenizer
    vq: VQTokenizer | None
    audio: AudioTokenizer | None
    device: torch.device

    @property
    def writer(self) -> Writer:
        """Writes segments as the model reads them."""
        return Writer(self.vocabulary)

    @property
    def images(self) -> VQTokenizer:
        """The image tokenizer.

        Raises:
            UserError: when there is none.
        """
        if self.vq is None:
            raise self.trained_without("pictures")
        return self.vq

    @property
    def sounds(self) -> AudioTokenizer:
        """The audio tokenizer.

        Raises:
            UserError: when there is none.
        """
        if self.audio is None:
            raise self.trained_without("sounds")
        return self.audio

    def trained_without(self, what: str) -> UserError:
        """The error of asking it for what its corpus had none of."""
        message = f"{self.folder} was trained without {what}"
        return UserError(message, "Train on a corpus that has some.")

    def caption(self, text: str) -> Segment:
        """A text as the condition of a picture, as long as it was in the training."""
        whole = text_segment(self.text.encode(text), self.vocabulary)
        return whole.part(0, self.settings.caption_max_tokens).as_("condition")

    def picture(self, codes: np.ndarray) -> Segment:
        """A picture of (h, w) codes."""
        return codes_segment(codes, self.vocabulary.image)


def prepare_run(folder: Path, vocabulary: Vocabulary, models: Mapping[str, Path]) -> None:
    """Copy into the run's folder what its model cannot be used without.

    Args:
        folder: the run.
        vocabulary: the id space of the shards.
        models: folders of the tokenizers: `text`, `vq` where there are pictures, and `audio` where
            there are sounds.
    """
    for name, model in models.items():
        with committing_folder(folder / _TOKENIZERS / name) as temporary:
            shutil.copytree(model, temporary, dirs_exist_ok=True)
    commit_json(folder / VOCABULARY, vocabulary.to_json())


def load_run(folder: Path) -> Run:
    """The trained model of a run: the averaged weights of its best checkpoint by held-out loss.

    Raises:
        UserError: when the folder holds no checkpoint, or one of another version.
    """
    checkpoint = best_checkpoint(folder)
    if checkpoint is None:
        raise UserError(f"{folder} holds no trained model", "Run `anymix train` first.")
    state = read_state(checkpoint)
    settings = TrainSettings.model_validate(state["settings"])
    vocabulary = read_vocabulary(folder / VOCABULARY)
    device = best_device()
    model = build_model(settings.model, vocabulary, seed=settings.seed)
    model.load_state_dict(read_average(checkpoint))
    tokenizers = folder / _TOKENIZERS
    return run_with(
        model.to(device).eval(),
        folder=folder,
        settings=settings,
        step=state["step"],
        vocabulary=vocabulary,
        models={each.name: each for each in tokenizers.iterdir()},
    )


def run_with(
    model: Decoder,
    *,
    folder: Path,
    settings: TrainSettings,
    step: int,
    vocabulary: Vocabulary,
    models: Mapping[str, Path],
) -> Run:
    """A model with the tokenizers of its corpus.

    Args:
        model: in evaluation mode, where it is to compute.
        folder: the run.
        settings: what it is trained with.
        step: optimiser steps behind it.
        vocabulary: the id space.
        models: folders of the tokenizers: `text`, and `vq` where there are pictures.
    """
    return Run(
        folder=folder,
        settings=settings,
        step=step,
        model=model,
        vocabulary=vocabulary,
        text=load_text(models["text"]),
        vq=load_vq(models["vq"]) if "vq" in models else None,
        audio=load_audio(models["audio"]) if "audio" in models else None,
        device=next(model.parameters()).device,
    )


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; lines that were cut short are left out."""
    return read_json_lines(folder / METRICS)
