"""Whether drawn pictures are found to be what they were drawn as, with the corpus's own CLIP.

A picture is drawn of the caption of each held-out picture, and its true picture is looked for among
the held-out ones by the cosine of CLIP's features. A CLIP that was trained on the corpus compares
only pictures that it has not seen: those of its own fold, with each other. The ceiling is what
reconstructions of the true pictures find, the floor what pictures of other captions find.

Legend: n pictures, D width of CLIP's features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from trainer.evaluate.likelihood import derangement
from trainer.evaluate.settings import EvaluateSettings
from trainer.evaluate.share import Share
from trainer.generate.sample import draw
from trainer.generate.settings import SampleSettings
from trainer.run import Run

_BATCH = 64
"""Pictures that CLIP gets at once; bounds its memory."""


class Clip(Protocol):
    """CLIP models by fold, as `filters.clip.ClipScorers` are; see there."""

    prepare: Callable[[Image.Image], Tensor]

    def fold(self, image_id: str) -> int:
        """The number of the model that has not seen an image."""

    def embed_images(self, image_ids: Sequence[str], pictures: Sequence[Tensor]) -> np.ndarray:
        """Unit vectors of prepared pictures, (n, D) float32."""

    def embed_texts(self, image_ids: Sequence[str], texts: Sequence[str]) -> list[np.ndarray]:
        """Unit vectors of the pieces of each text, (pieces, D) float32 each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """A held-out picture.

    Attributes:
        image_id: of the corpus's records.
        image: the picture.
        caption: its text.
        style: which style it is drawn in, where that is known.
    """

    image_id: str
    image: Image.Image
    caption: str
    style: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """Held-out pictures of different images, and what compares them."""

    pictures: Sequence[HeldOut]
    clip: Clip


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What some pictures find, each in place of one true picture.

    Attributes:
        recall_at_1: how often the true picture is the nearest one.
        recall_at_10: how often it is among the ten nearest.
        right_style: how often the nearest one is of the true one's style; None without styles.
        clip_score: mean cosine with the true pictures' captions, from -1 to 1 (Hessel et al.,
            CLIPScore, arXiv 2104.08718, equation 1, without its factor 2.5).
        frechet: distance of their features from the true pictures'; see `frechet_distance`. With
            several folds the mean, by the folds' sizes; None where a fold has fewer than two.
    """

    recall_at_1: Share
    recall_at_10: Share
    right_style: Share | None
    clip_score: float
    frechet: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """How well drawn pictures find the true ones.

    Attributes:
        num_pictures: how many held-out pictures were drawn; the sample of each figure.
        num_candidates: mean number of pictures among which each is looked for.
        clip_score_true: mean cosine of the true pictures with their captions.
        drawn: pictures that were drawn of the captions.
        reconstructed: the true pictures as their codes have them, the ceiling.
        shuffled: pictures that were drawn of other captions, the floor.
    """

    num_pictures: int
    num_candidates: float
    clip_score_true: float
    drawn: Found
    reconstructed: Found
    shuffled: Found

    def sentence(self) -> str:
        """The figures in words, always in the order drawn, reconstructed, shuffled."""
        kinds = (self.drawn, self.reconstructed, self.shuffled)
        first = " / ".join(each.recall_at_1.words() for each in kinds)
        tenth = " / ".join(each.recall_at_10.words() for each in kinds)
        scores = " / ".join(f"{each.clip_score:.3f}" for each in kinds)
        text = (
            f"Retrieval with CLIP: {self.num_pictures} pictures drawn of held-out captions / "
            "reconstructions of the true pictures (ceiling) / pictures drawn of other captions "
            f"(floor) find the true picture among {self.num_candidates:.0f} as the nearest one in "
            f"{first} and among the ten nearest in {tenth} of the cases."
        )
        styles = [each.right_style.words() for each in kinds if each.right_style is not None]
        if styles:
            text += f" The nearest one is of the right style in {' / '.join(styles)}."
        text += f" CLIP score {scores}; the true pictures have {self.clip_score_true:.3f}."
        distances = [f"{each.frechet:.3f}" for each in kinds if each.frechet is not None]
        if distances:
            text += f" Fréchet distance from the true pictures {' / '.join(distances)}, which"
            text += f" only compares samples of this size ({self.num_pictures})."
        return text


def retrieve(
    run: Run, gallery: Gallery, settings: EvaluateSettings, sampling: SampleSettings
) -> Retrieval | None:
    """Draw the captions of held-out pictures and look for the true ones.

    Args:
        run: the model.
        gallery: the first `max_retrieved` of its pictures are taken.
        settings: how many, and the seed of the shuffled captions.
        sampling: how they are drawn.

    Returns:
        None where fewer than two pictures have different captions, or half of them the same.
    """
    held = gallery.pictures[: settings.max_retrieved]
    captions = [each.caption for each in held]
    others = derangement(captions, np.random.default_rng(settings.seed))
    if others is None:
        return None
    true = [each.image for each in held]
    drawn = draw(run, captions, sampling)
    again = run.images.decode_images(run.images.encode_images(true))
    search = _Search(held, gallery.clip)
    return Retrieval(
        num_pictures=len(held),
        num_candidates=search.num_candidates,
        clip_score_true=search.clip_score(search.true),
        drawn=search.find(drawn),
        reconstructed=search.find(again),
        shuffled=search.find([drawn[other] for other in others]),
    )


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    """The Fréchet distance of two normal distributions with the means and covariances of samples.

    Heusel et al., arXiv 1706.08500, equation 6: |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^(1/2)). With
    centred samples A1 and A2, C = AᵀA / (n - 1), and the trace of the root is the sum of the
    singular values of A1 A2ᵀ / ((n1 - 1)(n2 - 1))^(1/2), so that no root of a matrix that has none
    is taken where the sample is smaller than D. It falls as samples grow: only distances at the
    same sample size can be compared.

    Args:
        one: (n1, D) float, at least two rows.
        other: (n2, D) float, at least two rows.
    """
    one, other = one.astype(np.float64), other.astype(np.float64)
    means = one.mean(axis=0) - other.mean(axis=0)  # (D,)
    a, b = (
        (each - each.mean(axis=0)) / (len(each) - 1) ** 0.5 for each in (one, other)
    )  # (n, D) each
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return max(0.0, float(means @ means + (a**2).sum() + (b**2).sum() - 2 * root))


class _Search:
    """The true pictures as CLIP sees them."""

    def __init__(self, held: Sequence[HeldOut], clip: Clip) -> None:
        self._clip = clip
        self._ids = [each.image_id for each in held]
        self._styles = [each.style for each in held]
        self._texts = clip.embed_texts(self._ids, [each.caption for each in held])
        folds: dict[int, list[int]] = {}
        for number, image_id in enumerate(self._ids):
            folds.setdefault(clip.fold(image_id), []).append(number)
        self._folds = list(folds.values())
        self.true = self._embed([each.image for each in held])  # (n, D)

    @property
    def num_candidates(self) -> float:
        """Mean size of the pictures' folds."""
        return sum(len(fold) ** 2 for fold in self._folds) / len(self._ids)

    def clip_score(self, features: np.ndarray) -> float:
        """Mean cosine of (n, D) features with the captions; of a long one's pieces, their mean."""
        cosines = [
            (pieces @ each).mean() for pieces, each in zip(self._texts, features, strict=True)
        ]
        return float(np.mean(cosines))

    def find(self, pictures: Sequence[Image.Image]) -> Found:
        """What pictures find, each in place of the true one of its number."""
        features = self._embed(pictures)  # (n, D)
        ranks, are_of_style, distances = [], [], []
        for fold in self._folds:
            cosines = features[fold] @ self.true[fold].T  # (n, n) of the fold
            # Another one that is as near counts as nearer, so that sameness finds nothing.
            ranks += ((cosines >= cosines.diagonal()[:, None]).sum(axis=1) - 1).tolist()
            for number, nearest in zip(fold, cosines.argmax(axis=1).tolist(), strict=True):
                if (style := self._styles[number]) is not None:
                    are_of_style.append(self._styles[fold[nearest]] == style)
            if len(fold) > 1:
                distances.append(frechet_distance(features[fold], self.true[fold]))
        sizes = [len(fold) for fold in self._folds]
        is_whole = len(distances) == len(sizes)
        return Found(
            recall_at_1=_share([rank < 1 for rank in ranks]),
            recall_at_10=_share([rank < 10 for rank in ranks]),
            right_style=_share(are_of_style) if are_of_style else None,
            clip_score=self.clip_score(features),
            frechet=float(np.average(distances, weights=sizes)) if is_whole else None,
        )

    def _embed(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """(n, D) float32, each by the model for the true picture of its number."""
        prepared = [self._clip.prepare(picture) for picture in pictures]
        return np.concatenate(
            [
                self._clip.embed_images(
                    self._ids[start : start + _BATCH], prepared[start : start + _BATCH]
                )
                for start in range(0, len(prepared), _BATCH)
            ]
        )


def _share(are_right: Sequence[bool]) -> Share:
    return Share(num_right=sum(are_right), num=len(are_right))
