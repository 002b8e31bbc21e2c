"""Trains the audio tokenizer on the corpus's sounds and measures it on held-out ones.

Legend: S samples, B batch, P values of a patch, N patches of a crop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from pipeline.device import best_device, seeded, use_threads
from pipeline.engine.stage import FitInputs, Progress
from pipeline.engine.storage import commit_json
from pipeline.engine.tables import connect
from pipeline.errors import StarvedError
from pipeline.one_cycle import warmup_share
from pipeline.sounds import read_sound
from tokenizer_cache.audio.model import AudioModel
from tokenizer_cache.audio.quality import MAX_HELD_OUT_S, METRICS, measure
from tokenizer_cache.audio.settings import AudioSettings
from tokenizer_cache.audio.tokenizer import load_audio, mono, save_audio

_NUM_START_CROPS = 256
_ROWS_PER_FETCH = 256


def fit(settings: AudioSettings, inputs: FitInputs, folder: Path) -> Iterator[Progress]:
    """Train on the sounds of the train split.

    Reads `records`. Saves the weights, `settings.json` and `metrics.json` (quality on the
    validation split).

    Raises:
        StarvedError: when there are no sounds.
    """
    sounds = load_sounds(inputs, "train", settings.sampling_rate, settings.max_hours * 3600)
    measured, split = held_out(inputs, settings.sampling_rate)
    sounds = sounds or measured  # of a few sounds all may be held out
    if not sounds:
        message = "the audio tokenizer cannot be trained: the corpus has no sounds"
        raise StarvedError(message, "Leave the source of sounds out, or give it some.")
    # Its layers are too small for more, and the number decides the last bits.
    with use_threads(1), seeded(settings.seed):
        model = AudioModel(settings).to(best_device()).train()
        for step, loss in _steps(model, sounds, settings):
            yield Progress(done=step, total=settings.steps, figures={"loss": loss})
        save_audio(folder, settings, model)
        figures = asdict(measure(load_audio(folder), measured))
    about = {"split": split, "num_sounds": len(measured), "num_train_sounds": len(sounds)}
    commit_json(folder / METRICS, {**figures, **about})
    yield Progress(done=settings.steps, total=settings.steps, figures=figures)


def held_out(inputs: FitInputs, sampling_rate: int) -> tuple[list[np.ndarray], str]:
    """The sounds (S,) that a tokenizer is measured on, and their split."""
    for split in ("validation", "train"):
        if sounds := load_sounds(inputs, split, sampling_rate, MAX_HELD_OUT_S):
            break
    return sounds, split


def load_sounds(
    inputs: FitInputs, split: str, sampling_rate: int, limit_s: float
) -> list[np.ndarray]:
    """The sounds of a split, each once, as (S,) float32: so many seconds of them, about.

    A sound id is a hash, so the lowest ids are a random choice that is the same every time.
    """
    rows = connect(inputs.tables).execute(
        """
        SELECT sound FROM (
            SELECT sound_id, any_value(sound) AS sound, any_value(duration_s) AS duration_s
            FROM records WHERE split = $split AND sound_id IS NOT NULL GROUP BY sound_id
        ) QUALIFY coalesce(sum(duration_s) OVER (
            ORDER BY sound_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ), 0) < $limit ORDER BY sound_id
        """,
        {"split": split, "limit": limit_s},
    )
    sounds: list[np.ndarray] = []
    while batch := rows.fetchmany(_ROWS_PER_FETCH):
        sounds += [mono(read_sound(content), sampling_rate) for (content,) in batch]
    return sounds


def _steps(
    model: AudioModel, sounds: Sequence[np.ndarray], settings: AudioSettings
) -> Iterator[tuple[int, float]]:
    """Take all steps; yield the number of each, and its loss.

    For the first `warmup_share` of them the codebook is left out, so that k-means starts from
    encodings that already mean something.
    """
    device = next(model.parameters()).device
    rate = settings.learning_rate
    optimizer = AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), fused=True)
    schedule = OneCycleLR(
        optimizer,
        rate,
        total_steps=settings.steps,
        pct_start=warmup_share(0.05, settings.steps),
        cycle_momentum=False,
    )
    random = np.random.default_rng(settings.seed)
    num_warmup = int(settings.warmup_share * settings.steps)

    def crops(count: int) -> Tensor:
        chosen = _crops(sounds, count, settings.crop_codes * settings.stride, random)
        return model.patches(torch.from_numpy(chosen).to(device))  # (B, P, N)

    for step in range(settings.steps):
        if step == num_warmup:
            with torch.no_grad():  # a batch has too few encodings for k-means
                model.quantizer(model.encoder(crops(_NUM_START_CROPS)))
        patches = crops(settings.batch_size)
        if step < num_warmup:
            again, commitment = model.autoencode(patches), patches.new_zeros(())
        else:
            again, commitment = model(patches)
        loss = F.mse_loss(again, patches) + F.l1_loss(again, patches) + commitment
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        yield step + 1, loss.item()


def _crops(
    sounds: Sequence[np.ndarray], count: int, size: int, random: np.random.Generator
) -> np.ndarray:
    """(count, size) float32: anywhere in sounds drawn by their length; silence after short ones."""
    lengths = np.array([len(sound) for sound in sounds])
    chosen = random.choice(len(sounds), count, p=lengths / lengths.sum())
    starts = (random.random(count) * (np.maximum(lengths[chosen] - size, 0) + 1)).astype(int)
    crops = np.zeros((count, size), np.float32)
    for crop, number, start in zip(crops, chosen, starts, strict=True):
        part = sounds[number][start : start + size]
        crop[: len(part)] = part
    return crops
