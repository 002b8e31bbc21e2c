"""A small CLIP trained on the corpus itself, fold by fold: the scorer that needs no download.

Each fold's model is trained on the pairs of the other folds, so that no pair is scored by a model
that has seen it (cross-fitting; Fang et al., Data Filtering Networks, arXiv 2309.17425, show that a
small model trained for filtering can filter well). The fold follows from the image's hash, so that
copies of an image share it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from open_clip import ClipLoss
from safetensors.torch import save_file

from filters.clip import create_model, fold_of, normalize, tokenize, weights_name
from filters.settings import ClipSettings
from pipeline import images
from pipeline.device import best_device, use_all_cores
from pipeline.engine.stage import FitInputs, Progress
from pipeline.engine.tables import connect
from pipeline.errors import UserError
from pipeline.references import image_bytes


def fit(settings: ClipSettings, inputs: FitInputs, folder: Path) -> Iterator[Progress]:
    """Train one model a fold on the records' own captions; writes `fold-N.safetensors`."""
    use_all_cores()
    pixels, captions, folds = _pairs(settings, inputs)
    for fold in range(settings.folds):
        mine = folds != fold
        if mine.sum() < 2:
            message = f"CLIP cannot be trained: fold {fold} leaves {mine.sum()} pairs"
            raise UserError(message, "Give the recipe more pictures, or fewer score.clip.folds.")
        chosen = [caption for caption, own in zip(captions, mine, strict=True) if own]
        for progress in _train_fold(settings, fold, pixels[mine], chosen, folder):
            yield Progress(
                done=fold * settings.steps + progress.done,
                total=settings.folds * settings.steps,
                figures={"fold": fold, **progress.figures},
            )


def _pairs(settings: ClipSettings, inputs: FitInputs) -> tuple[np.ndarray, list[str], np.ndarray]:
    """One pair an image: (N, s, s, 3) uint8 pixels, captions, and (N,) int64 folds."""
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
        raise UserError(
            message, "Take clip_score out of select.rules, or add a source with pictures."
        )
    return np.stack(pixels), captions, np.asarray(folds)


def _train_fold(
    settings: ClipSettings, fold: int, pixels: np.ndarray, captions: list[str], folder: Path
) -> Iterator[Progress]:
    torch.manual_seed(settings.seed + fold)
    device = best_device()
    model = create_model(settings).to(device).train()
    tokens = tokenize(captions, settings)  # (N, T)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=settings.learning_rate, total_steps=settings.steps, pct_start=0.1
    )
    loss_of = ClipLoss()
    chance = np.random.default_rng(settings.seed + fold)
    size = min(settings.batch_size, len(captions))
    order = np.empty(0, dtype=np.int64)
    for step in range(settings.steps):
        if len(order) < size:
            order = chance.permutation(len(captions))
        picked, order = order[:size], order[size:]
        image = model.encode_image(normalize(pixels[picked]).to(device), normalize=True)  # (B, D)
        text = model.encode_text(tokens[picked].to(device), normalize=True)  # (B, D)
        loss = loss_of(image, text, model.logit_scale.exp())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))  # arXiv 2103.00020, section 2.5
        yield Progress(done=step + 1, total=settings.steps, figures={"loss": loss.item()})
    weights = {name: value.contiguous().cpu() for name, value in model.state_dict().items()}
    save_file(weights, folder / weights_name(fold))
