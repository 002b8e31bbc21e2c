"""Takes a published image tokenizer into the corpus and measures it on the corpus's images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from pipeline.device import use_all_cores
from pipeline.engine.stage import FitInputs, Progress
from pipeline.engine.storage import commit_json
from pipeline.errors import UserError
from tokenizer_cache.hub import hub_place
from tokenizer_cache.settings import PublishedVQ, PublishedVQSettings
from tokenizer_cache.vq.description import SETTINGS, WEIGHTS
from tokenizer_cache.vq.model import to_tensor
from tokenizer_cache.vq.pixels import load_processor, own_size
from tokenizer_cache.vq.published import codebook_size_of, stride_of
from tokenizer_cache.vq.quality import (
    MAX_HELD_OUT,
    METRICS,
    RECONSTRUCTIONS,
    contact_sheet,
    load_images,
    psnrs,
    ssims,
    use_of,
)
from tokenizer_cache.vq.tokenizer import VQTokenizer, load_vq
from tokenizer_cache.vq.weights import read_weights

_LLAMAGEN_SIZE = 256
"""Pixels: what LlamaGen's VQ-16 was trained with (arXiv:2406.06525, section 3.1)."""
_BATCH_SIZE = 8


def fit(settings: PublishedVQSettings, inputs: FitInputs, folder: Path) -> Iterator[Progress]:
    """Copy the tokenizer's weights, shape and preprocessing; measure it on held-out images.

    Reads `records`. Saves what `train.fit` saves, but without a curve.

    Raises:
        UserError: when the weights are not there or are another model's, or there are no images.
    """
    adopt(settings, folder)
    tokenizer = load_vq(folder)
    split = "validation"
    images = load_images(inputs, split, tokenizer.prepare, MAX_HELD_OUT)
    if not len(images):
        split = "train"
        images = load_images(inputs, split, tokenizer.prepare, MAX_HELD_OUT)
    if not len(images):
        raise UserError(
            "the corpus has no images to measure the image tokenizer on",
            "Check that its sources have pictures.",
        )
    with use_all_cores():
        metrics = _measure(tokenizer, images, folder)
    shown = {name: value for name, value in metrics.items() if value is not None}
    about = {"split": split, "num_images": len(images), "curve": []}
    commit_json(folder / METRICS, {**metrics, **about})
    yield Progress(done=1, total=1, figures=shown)


def adopt(settings: PublishedVQSettings, folder: Path) -> PublishedVQ:
    """Save a published tokenizer for `load_vq`: what it is does not depend on a corpus.

    Raises:
        UserError: when the weights are not there or are another model's.
    """
    config, tensors = read_weights(settings)
    config.save_pretrained(folder)
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / WEIGHTS)
    size = _LLAMAGEN_SIZE
    if settings.kind != "llamagen":
        place, where = hub_place(settings.weights)
        processor = load_processor(settings.kind, place, **where)
        processor.save_pretrained(folder)
        size = own_size(settings.kind, processor)
    adopted = PublishedVQ(
        kind=settings.kind,
        image_size=settings.image_size or size,
        stride=stride_of(config),
        codebook_size=codebook_size_of(config),
        cuts_square=settings.kind == "janus",
    )
    commit_json(folder / SETTINGS, adopted.model_dump(mode="json"))
    return adopted


def _measure(tokenizer: VQTokenizer, images: np.ndarray, folder: Path) -> dict[str, float | None]:
    """Figures on prepared images (N, …), and the sheet of reconstructions where there are any."""
    starts = range(0, len(images), _BATCH_SIZE)
    batches = [images[start : start + _BATCH_SIZE] for start in starts]
    codes = [tokenizer.encode_pixels(batch) for batch in batches]  # (B, h, w) each
    usage, perplexity = use_of(np.concatenate(codes), tokenizer.codebook_size)
    psnr = ssim = None
    if tokenizer.can_decode:
        errors = [
            tokenizer.squared_errors(batch, held)
            for batch, held in zip(batches, codes, strict=True)
        ]
        psnr = float(psnrs(np.concatenate(errors)).mean())
        again = [np.asarray(picture) for held in codes for picture in tokenizer.decode_images(held)]
        shown = tokenizer.show(images)  # (N, H, W, 3)
        pairs = (to_tensor(torch.from_numpy(each)) for each in (shown, np.stack(again)))
        ssim = ssims(*pairs).mean().item()
        sheet = contact_sheet(shown, np.stack(again))
        Image.fromarray(sheet).save(folder / RECONSTRUCTIONS)
    return {"psnr": psnr, "ssim": ssim, "codebook_usage": usage, "perplexity": perplexity}
