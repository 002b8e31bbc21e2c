"""Trains the image tokenizer on the corpus and measures it on held-out images.

Legend: N images, B batch, H W image height and width, h w code grid, K codebook size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from pipeline.device import best_device, seeded, use_all_cores
from pipeline.engine.fingerprint import fingerprint, hash_bytes, hash_file
from pipeline.engine.stage import FitInputs, Progress
from pipeline.engine.storage import commit_json
from pipeline.errors import StarvedError
from pipeline.one_cycle import warmup_share
from tokenizer_cache.settings import VQSettings
from tokenizer_cache.vq.adversarial import Discriminator, adaptive_weight, discriminator_loss
from tokenizer_cache.vq.checkpoint import Checkpoints
from tokenizer_cache.vq.model import VQModel, to_pixels, to_tensor
from tokenizer_cache.vq.perceptual import PerceptualDistance
from tokenizer_cache.vq.pixels import SquarePixels
from tokenizer_cache.vq.quality import (
    MAX_HELD_OUT,
    METRICS,
    RECONSTRUCTIONS,
    SHEET_SIZE,
    Quality,
    contact_sheet,
    load_images,
    psnrs,
    ssims,
    use_of,
)
from tokenizer_cache.vq.tokenizer import save_vq

_NUM_START_IMAGES = 512
_NUM_EVALUATIONS = 8


def fit(settings: VQSettings, inputs: FitInputs, folder: Path) -> Iterator[Progress]:
    """Train on the images of the train split.

    Reads `records`. Saves the weights, `settings.json`, `metrics.json` (quality on the validation
    split, with its curve over the steps; there `dead_codes` are those that no step has used since
    the last point) and `reconstructions.png`.

    Raises:
        StarvedError: when there are no images.
    """
    images = _load_images(inputs, "train", settings.image_size, settings.max_images)
    held_out = _load_images(inputs, "validation", settings.image_size, MAX_HELD_OUT)
    if not len(images):
        images = held_out  # of a few pictures all may be held out
    if not len(images):
        message = "the image tokenizer cannot be trained: the corpus has no pictures"
        raise StarvedError(message, "A corpus needs pictures; texts alone come only beside them.")
    measured, split = (held_out, "validation") if len(held_out) else (images, "train")
    measured = measured[:MAX_HELD_OUT]

    # The number of threads decides the last bits, and Ray gives a process one.
    with use_all_cores(), seeded(settings.seed):
        yield from _train(settings, images, measured, split, folder)


def _train(
    settings: VQSettings, images: Tensor, measured: Tensor, split: str, folder: Path
) -> Iterator[Progress]:
    """Train on images (N, H, W, 3) uint8, and measure on those of a split."""
    model = VQModel(settings).to(best_device()).to(memory_format=torch.channels_last)
    training = _Training(model, images, settings)
    every = max(1, settings.steps // _NUM_EVALUATIONS)
    for step, figures in training.steps():
        is_point = step % every == 0
        # Its first use starts the codebook, so measuring waits until training has used it.
        if step > _num_warmup_steps(settings) and (is_point or step == settings.steps):
            figures.update(asdict(measure(model, measured)))
            training.add_point(step, figures)
        if is_point:
            training.save(step)
        yield Progress(done=step, total=settings.steps, figures=figures)

    model.eval()
    save_vq(folder, settings, model)
    metrics = {**asdict(measure(model, measured)), "split": split, "num_images": len(measured)}
    commit_json(
        folder / METRICS, {**metrics, "num_train_images": len(images), "curve": training.curve}
    )
    _reconstruction_sheet(model, measured).save(folder / RECONSTRUCTIONS)
    training.remove_checkpoint()


@torch.inference_mode()
def measure(model: VQModel, pixels: Tensor) -> Quality:
    """The quality of a model on images (N, H, W, 3) uint8; leaves the model in training mode."""
    device = next(model.parameters()).device
    model.eval()
    errors, similarities, codes = [], [], []
    for batch in pixels.split(128):
        images = to_tensor(batch.to(device))  # (B, 3, H, W)
        reconstructions, batch_codes, _ = model(images)
        reconstructions = reconstructions.clamp(-1, 1)
        error = (reconstructions - images).square().mean(dim=(1, 2, 3))  # (B,)
        similarities.append(ssims(reconstructions, images).cpu())
        errors.append(error.cpu())
        codes.append(batch_codes.flatten().cpu())
    model.train()
    usage, perplexity = use_of(torch.cat(codes).numpy(), model.quantizer.codebook_size)
    psnr = float(psnrs(torch.cat(errors).numpy()).mean())
    ssim = torch.cat(similarities).mean().item()
    return Quality(psnr=psnr, ssim=ssim, codebook_usage=usage, perplexity=perplexity)


class _Training:
    """A training that a killed process left off goes on from its newest checkpoint.

    For the first `warmup_share` of the steps the codebook is left out, so that k-means starts from
    encodings that already mean something. Ours: on OpenMoji 15.4 dB after 202 steps of 32 images,
    and without it 14.5 dB after the 168 that took as long.
    """

    def __init__(self, model: VQModel, pixels: Tensor, settings: VQSettings) -> None:
        self._model, self._pixels, self._settings = model, pixels, settings
        self._device = next(model.parameters()).device
        self._networks: dict[str, nn.Module] = {"model": model}
        groups: list[dict[str, Any]] = [{"params": model.parameters(), "betas": (0.9, 0.95)}]
        if settings.adversarial:
            critic = self._critic = Discriminator(settings.adversarial).to(self._device)
            self._networks["critic"] = critic
            groups.append({"params": critic.parameters(), "betas": (0.5, 0.9)})  # VQGAN's
        rate, network = settings.learning_rate, None
        if settings.perceptual:
            network = settings.perceptual.network
            self._perceptual = PerceptualDistance(network).to(self._device)
        self._optimizer = AdamW(groups, lr=rate, fused=True)
        self._schedule = OneCycleLR(
            self._optimizer,
            rate,
            total_steps=settings.steps,
            pct_start=warmup_share(0.05, settings.steps),
            cycle_momentum=False,
        )
        key = fingerprint(
            settings=settings.model_dump(mode="json"),
            images=hash_bytes(pixels.numpy().tobytes()),
            network=network and hash_file(network),
        )
        self._checkpoints = Checkpoints(key)
        self._done = 0
        self._used = torch.zeros(settings.codebook_size, dtype=torch.bool)  # (K,)
        self.curve: list[dict[str, float]] = []
        if progress := self._checkpoints.restore(self._networks, self._optimizer, self._schedule):
            self._done, self.curve = progress["step"], progress["curve"]
            self._used[progress["used"]] = True

    def steps(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Take the steps that are left; yield the number of each, and its losses."""
        self._model.train()
        choices = islice(_choices(len(self._pixels), self._settings), self._done, None)
        for step, (chosen, flipped) in enumerate(choices, start=self._done):
            batch = self._pixels[chosen]  # (B, H, W, 3)
            batch = torch.where(flipped[:, None, None, None], batch.flip(2), batch)
            yield step + 1, self._take(step, batch)

    def add_point(self, step: int, figures: dict[str, float]) -> None:
        """Add to the curve, with the codes that no step has used since the last point."""
        figures["dead_codes"] = int((~self._used).sum())
        self._used.fill_(value=False)
        self.curve.append({"step": step, **figures})

    def save(self, step: int) -> None:
        """Commit a checkpoint after so many steps."""
        used = self._used.nonzero().flatten().tolist()
        progress = {"step": step, "curve": self.curve, "used": used}
        self._checkpoints.save(self._networks, self._optimizer, self._schedule, progress)

    def remove_checkpoint(self) -> None:
        """The training is done."""
        self._checkpoints.remove()

    def _take(self, step: int, batch: Tensor) -> dict[str, float]:
        """One step on a batch (B, H, W, 3) uint8; its losses."""
        model, settings = self._model, self._settings
        images = to_tensor(batch.to(self._device)).contiguous(memory_format=torch.channels_last)
        if settings.quantizer == "vq" and step == _num_warmup_steps(settings):
            _start_codebook(model, self._pixels[:_NUM_START_IMAGES].to(self._device))
        if step < _num_warmup_steps(settings):
            reconstructions, commitment = model.autoencode(images), images.new_zeros(())
        else:
            reconstructions, codes, commitment = model(images)
            self._used[codes.flatten().cpu()] = True
        # Squared error is what PSNR measures; the absolute one keeps thin lines sharp.
        loss = F.mse_loss(reconstructions, images)
        loss = loss + settings.absolute_error_weight * F.l1_loss(reconstructions, images)
        if settings.perceptual:
            distance = self._perceptual(reconstructions, images)
            loss = loss + settings.perceptual.weight * distance
        adversarial = settings.adversarial
        if adversarial and step < adversarial.start_share * settings.steps:
            adversarial = None
        if adversarial:
            fooled = -self._critic(reconstructions).mean()
            weight = adversarial.weight * adaptive_weight(loss, fooled, model.last_weight)
            loss = loss + weight * fooled
        loss = loss + commitment
        self._optimizer.zero_grad()
        loss.backward()
        figures = {"loss": loss.item()}
        if adversarial:
            figures["discriminator_loss"] = self._judge(images, reconstructions.detach())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        self._optimizer.step()
        self._schedule.step()
        return figures

    def _judge(self, images: Tensor, reconstructions: Tensor) -> float:
        """Give the discriminator the gradients of its own loss alone; that loss."""
        self._critic.zero_grad()
        loss = discriminator_loss(self._critic(images), self._critic(reconstructions))
        loss.backward()
        return loss.item()


@torch.no_grad()
def _start_codebook(model: VQModel, pixels: Tensor) -> None:
    """Set the codes by k-means over the encodings of many images: a batch has too few of them."""
    model.quantizer(model.encoder(to_tensor(pixels)))


def _num_warmup_steps(settings: VQSettings) -> int:
    """None without a codebook that has to be started."""
    if settings.quantizer != "vq":
        return 0
    return int(settings.warmup_share * settings.steps)


def _choices(num_images: int, settings: VQSettings) -> Iterator[tuple[Tensor, Tensor]]:
    """For each step the images (B,) and which are flipped (B,): epochs in random order."""
    random = np.random.default_rng(settings.seed)
    queue = np.empty(0, np.int64)
    for _ in range(settings.steps):
        while len(queue) < settings.batch_size:
            queue = np.concatenate([queue, random.permutation(num_images)])
        chosen, queue = np.split(queue, [settings.batch_size])
        flipped = random.random(len(chosen)) < 0.5
        yield torch.from_numpy(chosen), torch.from_numpy(flipped)


def _load_images(inputs: FitInputs, split: str, size: int, limit: int) -> Tensor:
    """(N, size, size, 3) uint8: images of a split; none where it has none."""
    return torch.from_numpy(load_images(inputs, split, SquarePixels(size).prepare, limit))


@torch.inference_mode()
def _reconstruction_sheet(model: VQModel, pixels: Tensor) -> Image.Image:
    """Rows of images, each above a row of their reconstructions."""
    shown = pixels[:SHEET_SIZE]
    device = next(model.parameters()).device
    again = to_pixels(model(to_tensor(shown.to(device)))[0]).cpu()  # (N, H, W, 3)
    return Image.fromarray(contact_sheet(shown.numpy(), again.numpy()))
