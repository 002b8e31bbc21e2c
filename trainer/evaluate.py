"""Judges a trained model on held-out records: its loss, and whether it uses its condition.

Legend: n pairs, h w code grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from pipeline.engine.storage import commit_json
from tokenizer_cache.manifest import Manifest, open_manifest
from tokenizer_cache.shard_reading import ImageSegment, TextSegment
from trainer.batch import Batch, collate, modalities
from trainer.held_out import held_out_rows, held_out_samples
from trainer.mix import STREAMS
from trainer.packing import build_row
from trainer.run import EVALUATION, Run
from trainer.settings import EvaluateSettings
from trainer.train.loss import mean_by_modality, next_token_losses

_BATCH = 16
"""Rows at a time; bounds the memory of the logits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A held-out picture with its text; `codes` are (h, w) uint16."""

    key: str
    text: str
    codes: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionTest:
    """How much likelier pictures are with their own text than with another picture's.

    Attributes:
        num_pairs: held-out pairs.
        own_nats: mean NLL of a picture's codes after its own text, in nats a picture.
        shuffled_nats: the same after the text of another picture.
        gain_nats: mean of the paired differences, shuffled - own.
        low: lower end of the 95 % interval of `gain_nats`.
        high: upper end.
        excludes_zero: whether the interval lies above 0.
    """

    num_pairs: int
    own_nats: float
    shuffled_nats: float
    gain_nats: float
    low: float
    high: float
    excludes_zero: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What is known of a trained model.

    Attributes:
        step: optimiser steps behind it.
        held_out: nats per token by stream and modality; `all` holds the streams together.
        bits_per_pixel: of the codes of held-out pictures, after their texts; None without pairs.
        condition: None where fewer than two held-out pictures have different texts.
    """

    step: int
    held_out: dict[str, dict[str, float]]
    bits_per_pixel: float | None
    condition: ConditionTest | None

    def sentence(self) -> str:
        """The condition test in words."""
        test = self.condition
        if test is None:
            return "There are too few held-out pairs to tell whether the model uses its texts."
        verdict = (
            "the interval lies above 0, so the model uses its texts"
            if test.excludes_zero
            else "the interval contains 0, so it is not shown that the model uses its texts"
        )
        return (
            f"On {test.num_pairs} held-out pairs a picture is {test.gain_nats:.2f} nats likelier "
            f"after its own text than after another picture's (95 % interval {test.low:.2f} to "
            f"{test.high:.2f}; {test.own_nats:.1f} against {test.shuffled_nats:.1f} nats): "
            f"{verdict}."
        )


def evaluate(run: Run, *, shards: Path, settings: EvaluateSettings) -> Evaluation:
    """Judge a run on the validation shards and write its `evaluation.json`.

    Raises:
        UserError: when the shards' vocabulary is not the one that the model was trained with.
    """
    manifest = open_manifest(shards, run.vocabulary.fingerprint)
    pairs = held_out_pairs(manifest, settings.max_pairs)
    test = condition_test(run, pairs, settings)
    evaluation = Evaluation(
        step=run.step,
        held_out=_losses(run, manifest, settings.max_rows),
        bits_per_pixel=_bits_per_pixel(run, test),
        condition=test,
    )
    commit_json(run.folder / EVALUATION, asdict(evaluation) | {"sentence": evaluation.sentence()})
    return evaluation


def held_out_pairs(manifest: Manifest, max_pairs: int) -> list[Pair]:
    """Pictures of the validation shards, each with its first caption, from both picture streams."""
    pairs = []
    for stream in ("image", "mixed"):
        for sample in held_out_samples(manifest, stream):
            neighbours = list(pairwise(sample.segments))
            if stream == "mixed":  # there the text follows its picture
                neighbours = [(text, image) for image, text in neighbours]
            found = [
                (text, image)
                for text, image in neighbours
                if isinstance(text, TextSegment) and isinstance(image, ImageSegment)
            ]
            pairs += [
                Pair(key=f"{sample.key}/{n}", text=text.captions[0].text, codes=image.codes)
                for n, (text, image) in enumerate(found)
            ]
    return pairs[:max_pairs]


def condition_test(
    run: Run, pairs: Sequence[Pair], settings: EvaluateSettings
) -> ConditionTest | None:
    """Compare the NLL of pictures after their own and after other pictures' texts, pair by pair.

    The interval is the bootstrap's percentile interval of the mean (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, chapter 13): the differences need not be normal.
    """
    rng = np.random.default_rng(settings.seed)
    others = derangement([pair.text for pair in pairs], rng)
    if others is None:
        return None
    own = picture_nats(run, [pair.text for pair in pairs], [pair.codes for pair in pairs])
    shuffled = picture_nats(run, [pairs[n].text for n in others], [pair.codes for pair in pairs])
    gains = shuffled - own  # (n,)
    choices = rng.integers(len(gains), size=(settings.num_resamples, len(gains)))
    low, high = np.quantile(gains[choices].mean(axis=1), (0.025, 0.975))
    return ConditionTest(
        num_pairs=len(pairs),
        own_nats=float(own.mean()),
        shuffled_nats=float(shuffled.mean()),
        gain_nats=float(gains.mean()),
        low=float(low),
        high=float(high),
        excludes_zero=bool(low > 0),
    )


def derangement(texts: Sequence[str], rng: np.random.Generator) -> list[int] | None:
    """A permutation that gives every place another text than its own, drawn from `rng`.

    Places are put in groups of one text; a turn by the size of the largest group moves each place
    out of its group.

    Returns:
        For each place the index of its new text; None where one text has more than half the places.
    """
    order = rng.permutation(len(texts)).tolist()
    first: dict[str, int] = {}
    for index in order:
        first.setdefault(texts[index], len(first))
    order.sort(key=lambda index: first[texts[index]])
    largest = max((texts.count(text) for text in first), default=0)
    if largest * 2 > len(texts) or not texts:
        return None
    turned = order[largest:] + order[:largest]
    result = [0] * len(texts)
    for index, other in zip(order, turned, strict=True):
        result[index] = other
    return result


@torch.no_grad()
def picture_nats(run: Run, texts: Sequence[str], codes: Sequence[np.ndarray]) -> np.ndarray:
    """The NLL of each picture's codes after a text.

    Args:
        run: the model.
        texts: one for each picture.
        codes: (h, w) uint16 each.

    Returns:
        (n,) float64 nats, summed over the codes.
    """
    encoder, ids = run.encoder, run.vocabulary.image
    pad = run.vocabulary.special("<pad>")
    documents = [
        [*encoder.caption_segment(text), *encoder.image_segment(each), encoder.end]
        for text, each in zip(texts, codes, strict=True)
    ]
    sums = []
    for start in range(0, len(documents), _BATCH):
        part = documents[start : start + _BATCH]
        length = max(map(len, part))
        rows = [build_row([document], seq_len=length, pad=pad) for document in part]
        batch = collate(rows, run.vocabulary, run.device)
        losses = _token_losses(run, batch)
        is_code = (batch.targets >= ids.start) & (batch.targets < ids.stop)  # (B, T)
        sums.append((losses.view_as(is_code) * is_code).sum(dim=1).double().cpu().numpy())
    return np.concatenate(sums)


@torch.no_grad()
def _losses(run: Run, manifest: Manifest, max_rows: int) -> dict[str, dict[str, float]]:
    """Nats per token of held-out rows by stream and modality, and of all streams together."""
    ids = modalities(run.vocabulary)
    losses: dict[str, torch.Tensor] = {}
    targets: dict[str, torch.Tensor] = {}
    for stream in STREAMS:
        rows = held_out_rows(run.settings, manifest, stream, max_rows)
        parts = []
        for start in range(0, len(rows), _BATCH):
            batch = collate(rows[start : start + _BATCH], run.vocabulary, run.device)
            parts.append((_token_losses(run, batch), batch.targets.flatten()))
        if parts:
            losses[stream] = torch.cat([loss for loss, _ in parts])
            targets[stream] = torch.cat([target for _, target in parts])
    result = {stream: mean_by_modality(losses[stream], targets[stream], ids) for stream in losses}
    if losses:
        together = torch.cat(list(losses.values())), torch.cat(list(targets.values()))
        result["all"] = mean_by_modality(*together, ids)
    return result


def _token_losses(run: Run, batch: Batch) -> torch.Tensor:
    """(B * T,) float32 nats of each token."""
    hidden = batch.hidden(run.model).flatten(0, 1)
    return next_token_losses(hidden, run.model.head.weight, batch.targets.flatten())[0]


def _bits_per_pixel(run: Run, test: ConditionTest | None) -> float | None:
    """Bits that the codes of a picture cost, per pixel of the picture that they stand for."""
    if test is None:
        return None
    return test.own_nats / math.log(2) / run.vq.num_pixels
