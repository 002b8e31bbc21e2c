"""A small CLIP trained on the corpus itself, fold by fold: the scorer that needs no download.

Each fold's model is trained on the pairs of the other folds, so that no pair is scored by a model
that has seen it (cross-fitting; Fang et al., Data Filtering Networks, arXiv 2309.17425, show that a
small model trained for filtering can filter well). The fold follows from the image's hash, so that
copies of an image share it.

The captions may be wrong. Models learn what many pairs agree on before they learn single pairs by
heart (Arpit et al., A Closer Look at Memorization in Deep Networks, arXiv 1706.05394), so that
training is cut into rounds: after each, every pair is scored by the model that has not seen it, and
all go on without the pairs that fit worst (as Han et al., Co-teaching, arXiv 1804.06872, choose
small losses; there, too, one network chooses for the other).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.clip import BATCH_SIZE, fold_of, load_trained, normalize, tokenize, weights_name
from filters.clip_training import ClipTraining
from filters.settings import ClipSettings
from pipeline import images
from pipeline.calibration import WEAK_AUC, auc
from pipeline.device import use_all_cores
from pipeline.engine.stage import FitInputs, Progress
from pipeline.engine.storage import commit_json
from pipeline.engine.tables import connect
from pipeline.errors import StarvedError
from pipeline.references import image_bytes

if TYPE_CHECKING:
    from torch import Tensor

METRICS = "metrics.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pairs:
    """One pair an image: N of them.

    Attributes:
        pixels: (N, s, s, 3) uint8.
        captions: as the source gave them.
        tokens: (N, T) int64 of the captions.
        folds: (N,) int64, the model of that number does not see the pair.
    """

    pixels: np.ndarray
    captions: Sequence[str]
    tokens: Tensor
    folds: np.ndarray


def fit(settings: ClipSettings, inputs: FitInputs, folder: Path) -> Iterator[Progress]:
    """Train one model a fold on the records' own captions.

    A fold that leaves no two pairs keeps the weights that it began with.

    Writes `fold-N.safetensors` and `metrics.json`: after each round how many pairs it was trained
    on, and the AUC of held-out pictures with their captions against other pictures' captions.

    Raises:
        StarvedError: when there is no picture.
    """
    pairs = _read_pairs(settings, inputs)
    with use_all_cores():
        yield from _train(settings, pairs, folder)


def _train(settings: ClipSettings, pairs: _Pairs, folder: Path) -> Iterator[Progress]:
    trainings = [ClipTraining(settings, settings.seed + fold) for fold in range(settings.folds)]
    kept = np.ones(len(pairs.captions), dtype=bool)
    rounds: list[dict[str, Any]] = []
    total, done = settings.folds * settings.steps, 0
    for steps in _steps_by_round(settings):
        for fold, training in enumerate(trainings):
            mine = np.flatnonzero((pairs.folds != fold) & kept)
            # One pair leaves nothing to tell apart: the score will be found too weak to filter by.
            taken = steps if len(mine) > 1 else 0
            for loss in training.run(pairs.pixels[mine], pairs.tokens[mine], taken):
                done += 1
                yield Progress(done=done, total=total, figures={"fold": fold, "loss": loss})
            done += steps - taken
            training.save(folder / weights_name(fold))
        true, wrong = _score(settings, pairs, folder)
        known = np.flatnonzero(~np.isnan(wrong))
        found = auc(true[known], wrong[known], known, known)
        rounds.append({"num_pairs": int(kept.sum()), "auc": asdict(found)})
        kept = _best(true, pairs.folds, settings.drop_share)
    commit_json(folder / METRICS, {"rounds": rounds, "is_weak": (found.low or 0) < WEAK_AUC})
    yield Progress(done=done, total=total, figures={"auc": found.value or 0.0})


def _read_pairs(settings: ClipSettings, inputs: FitInputs) -> _Pairs:
    rows = connect({"records": inputs.tables["records"]}).sql(
        "SELECT image_id, first(image ORDER BY record_id) AS image,"
        " first(image_ref ORDER BY record_id) AS image_ref,"
        " first(caption ORDER BY record_id) AS caption"
        " FROM records WHERE image_id IS NOT NULL GROUP BY image_id ORDER BY image_id"
    )
    pixels, captions, folds = [], [], []
    for batch in rows.to_arrow_reader(1024):
        rows_here = batch.to_pylist()
        for row, content in zip(rows_here, image_bytes(rows_here), strict=True):
            pixels.append(images.fit_square(images.decode(content), settings.image_size))
            captions.append(row["caption"])
            folds.append(fold_of(row["image_id"], settings.folds))
    if not pixels:
        message = "CLIP cannot be trained: the corpus has no pictures"
        raise StarvedError(message, "A corpus needs pictures; texts alone come only beside them.")
    return _Pairs(
        pixels=np.stack(pixels),
        captions=captions,
        tokens=tokenize(captions, settings),
        folds=np.asarray(folds),
    )


def _steps_by_round(settings: ClipSettings) -> list[int]:
    """The steps of a fold, cut into rounds of a size."""
    ends = np.linspace(0, settings.steps, settings.rounds + 1).round().astype(int)
    return np.diff(ends).tolist()


def _score(settings: ClipSettings, pairs: _Pairs, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The cosines of held-out pictures with their captions, and with others': (N,) float32 each.

    A wrong score is NaN where the other caption is the same one.
    """
    true = np.full(len(pairs.captions), np.nan, dtype=np.float32)
    wrong = true.copy()
    chance = np.random.default_rng(settings.seed)
    for fold in np.unique(pairs.folds):
        own = chance.permutation(np.flatnonzero(pairs.folds == fold))
        scorer = load_trained(folder / weights_name(fold), settings)
        starts = range(0, len(own), BATCH_SIZE)
        batches = [normalize(pairs.pixels[own[start : start + BATCH_SIZE]]) for start in starts]
        seen = np.concatenate([scorer.embed_images(list(batch)) for batch in batches])  # (B, D)
        texts = scorer.embed_texts([pairs.captions[index] for index in own])
        spoken = np.stack([pieces.mean(axis=0) for pieces in texts])  # (B, D)
        true[own] = (seen * spoken).sum(axis=1)
        other = np.roll(own, 1)
        differs = (pairs.tokens[own] != pairs.tokens[other]).any(dim=1).numpy()
        cosines = (seen * np.roll(spoken, 1, axis=0)).sum(axis=1)
        wrong[own] = np.where(differs, cosines, np.nan)
    return true, wrong


def _best(scores: np.ndarray, folds: np.ndarray, drop_share: float) -> np.ndarray:
    """Which pairs stay: (N,) bool. Each fold is cut by itself, as its scores are of one model."""
    kept = np.ones(len(scores), dtype=bool)
    for fold in np.unique(folds):
        own = folds == fold
        kept[own] = scores[own] >= np.quantile(scores[own], drop_share)
    return kept
