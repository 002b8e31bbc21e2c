"""An open_clip model on the CPU or a GPU: embeddings of pictures and texts, and their cosine.

Legend: B pictures or texts, D width of the embedding, T context length, s image size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from open_clip import CLIP, SimpleTokenizer
from safetensors.torch import load_file

from filters.settings import ClipSettings
from pipeline.device import best_device

if TYPE_CHECKING:
    from torch import Tensor

_Many = TypeVar("_Many", np.ndarray, Sequence[str])

_MEAN, _STD = 0.5, 0.5
"""Pictures go from [0, 1] to [-1, 1]: a model trained on the corpus needs no ImageNet."""


def create_model(settings: ClipSettings) -> CLIP:
    """The small CLIP with random weights (Radford et al., arXiv 2103.00020, section 2.4).

    Its image tower is their ResNet, as convolutions learn from fewer pictures than a transformer.
    """
    return CLIP(
        embed_dim=settings.width,
        vision_cfg={
            "image_size": settings.image_size,
            "layers": (settings.vision_layers,) * 4,
            "width": settings.vision_width,
            "head_width": 32,
        },
        text_cfg={
            "context_length": settings.context_length,
            "vocab_size": 49_408,  # of open_clip's byte-level BPE
            "width": settings.width,
            "heads": settings.width // 32,
            "layers": settings.text_layers,
        },
    )


def fold_of(image_id: str, folds: int) -> int:
    """The fold of an image: the model of that number has not seen it."""
    return int(image_id[:8], 16) % folds


def weights_name(fold: int) -> str:
    """File name of a fold's weights in the model's folder."""
    return f"fold-{fold}.safetensors"


def tokenize(texts: Sequence[str], settings: ClipSettings) -> Tensor:
    """Token ids: (B, T) int64, cut to the context length."""
    ids: Tensor = _tokenizer()(list(texts), context_length=settings.context_length)
    return ids


def normalize(pixels: np.ndarray) -> Tensor:
    """From (B, s, s, 3) uint8 to (B, 3, s, s) float32 in [-1, 1]."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255  # (B, 3, s, s)
    return (images - _MEAN) / _STD


class ClipScorer:
    """One trained model, ready to embed."""

    def __init__(self, weights: Path, settings: ClipSettings) -> None:
        self._settings = settings
        self._device = best_device()
        self._model = create_model(settings)
        self._model.load_state_dict(load_file(weights))
        self._model.eval().to(self._device)

    @torch.inference_mode()
    def embed_images(self, pixels: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Unit vectors: (B, D) float32 of (B, s, s, 3) uint8 pixels."""
        batches = [
            self._model.encode_image(normalize(batch).to(self._device), normalize=True).cpu()
            for batch in _batches(pixels, batch_size)
        ]
        return torch.cat(batches).numpy()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Unit vectors: (B, D) float32."""
        batches = [
            self._model.encode_text(
                tokenize(batch, self._settings).to(self._device), normalize=True
            ).cpu()
            for batch in _batches(texts, batch_size)
        ]
        return torch.cat(batches).numpy()


class CrossFitScorers:
    """The model of each fold, to score pictures with one that has not seen them."""

    def __init__(self, folder: Path, settings: ClipSettings) -> None:
        self._scorers = [
            ClipScorer(folder / weights_name(fold), settings) for fold in range(settings.folds)
        ]

    def fold(self, image_id: str) -> int:
        """The fold of an image: cosines and features of one fold are of one model."""
        return fold_of(image_id, len(self._scorers))

    def embed_images(self, image_ids: Sequence[str], pixels: Sequence[np.ndarray]) -> np.ndarray:
        """Unit vectors of pictures: (B, D) float32 of (s, s, 3) uint8 each."""
        return self._embed(
            image_ids,
            lambda scorer, rows: scorer.embed_images(np.stack([pixels[row] for row in rows])),
        )

    def embed_texts(self, image_ids: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of texts, each by the model for the picture beside it: (B, D) float32."""
        return self._embed(
            image_ids, lambda scorer, rows: scorer.embed_texts([texts[row] for row in rows])
        )

    def _embed(
        self, image_ids: Sequence[str], embed: Callable[[ClipScorer, list[int]], np.ndarray]
    ) -> np.ndarray:
        """Each fold's rows by its scorer, put in their places again."""
        if not image_ids:
            return np.empty((0, 0), np.float32)
        rows: dict[int, list[int]] = {}
        for row, image_id in enumerate(image_ids):
            rows.setdefault(self.fold(image_id), []).append(row)
        found = {fold: embed(self._scorers[fold], own) for fold, own in sorted(rows.items())}
        order = np.concatenate([rows[fold] for fold in found])
        return np.concatenate(list(found.values()))[np.argsort(order)]


def _batches(items: _Many, size: int) -> list[_Many]:
    return [items[start : start + size] for start in range(0, len(items), size)]


@cache
def _tokenizer() -> SimpleTokenizer:
    """open_clip's tokenizer, made once: it takes half a second."""
    return SimpleTokenizer()
