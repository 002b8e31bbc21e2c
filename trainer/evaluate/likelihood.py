"""How likely a model holds records: its loss, and whether it uses its condition.

Legend: n pairs, h w code grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise, zip_longest

import numpy as np
import torch

from pipeline.progress import counting
from tokenizer_cache.manifest import Manifest
from tokenizer_cache.shard_reading import ImageSegment, TextSegment, read_shard
from trainer.data.batch import Batch, collate, modalities
from trainer.data.held_out import held_out_rows
from trainer.data.mix import STREAMS
from trainer.data.packing import Row
from trainer.data.rows import row_of
from trainer.evaluate.settings import EvaluateSettings
from trainer.run import Run
from trainer.train.loss import next_token_losses
from trainer.train.tally import Tally

_BATCH = 16
"""Rows at a time; bounds the memory of the logits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A picture with its texts.

    Attributes:
        key: of the sample, with the picture's number in it.
        captions: at least one; they all say the same.
        codes: (h, w) uint16.
    """

    key: str
    captions: tuple[str, ...]
    codes: np.ndarray

    @property
    def text(self) -> str:
        """The first of the captions."""
        return self.captions[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionTest:
    """How much likelier pictures are with their own text than with another picture's.

    Attributes:
        num_pairs: how many pairs were compared.
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


def pairs_of(manifest: Manifest, split: str, max_pairs: int) -> list[Pair]:
    """The first pictures of a split with their captions, from both picture streams in turn.

    Args:
        manifest: of the shards, which are read only as far as it takes.
        split: `train` or `validation`.
        max_pairs: how many at most.
    """
    streams = [_pairs_of_stream(manifest, stream, split) for stream in ("image", "mixed")]
    in_turn = (pair for several in zip_longest(*streams) for pair in several if pair is not None)
    return list(islice(in_turn, max_pairs))


def _pairs_of_stream(manifest: Manifest, stream: str, split: str) -> Iterator[Pair]:
    for path in manifest.paths(stream, split):
        for sample in read_shard(path):
            neighbours = list(pairwise(sample.segments))
            if stream == "mixed":  # there the text follows its picture
                neighbours = [(text, image) for image, text in neighbours]
            found = [
                (text, image)
                for text, image in neighbours
                if isinstance(text, TextSegment) and isinstance(image, ImageSegment)
            ]
            for n, (text, image) in enumerate(found):
                key = f"{sample.key}/{n}"
                captions = tuple(caption.text for caption in text.captions)
                yield Pair(key=key, captions=captions, codes=image.codes)


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
    writer, pad = run.writer, run.vocabulary.special("<pad>")
    documents = [
        writer.write([run.caption(text), run.picture(each)])
        for text, each in zip(texts, codes, strict=True)
    ]
    sums = []
    with counting("reading") as show:
        for start in range(0, len(documents), _BATCH):
            part = documents[start : start + _BATCH]
            length = max(len(document.tokens) for document in part)
            sums.append(codes_nats(run, [row_of(each, seq_len=length, pad=pad) for each in part]))
            show(start + len(part), len(documents), "pictures")
    return np.concatenate(sums)


@torch.no_grad()
def codes_nats(run: Run, rows: Sequence[Row]) -> np.ndarray:
    """The NLL of the image codes in each of some rows of one length.

    Returns:
        (B,) float64 nats, summed over the codes.
    """
    ids, batch = run.vocabulary.image, collate(rows, run.device)
    losses = _token_losses(run, batch)
    is_code = (batch.targets >= ids.start) & (batch.targets < ids.stop)  # (B, T)
    sums: np.ndarray = (losses.view_as(is_code) * is_code).sum(dim=1).double().cpu().numpy()
    return sums


@torch.no_grad()
def held_out_losses(run: Run, manifest: Manifest, max_rows: int) -> dict[str, dict[str, float]]:
    """Nats per token of held-out rows by stream and modality, and of all streams together."""
    ids = modalities(run.vocabulary)
    whole = Tally.empty(ids)
    for stream in STREAMS:
        rows = held_out_rows(run.settings, manifest, stream, max_rows)
        with counting("reading") as show:
            for start in range(0, len(rows), _BATCH):
                part = rows[start : start + _BATCH]
                batch = collate(part, run.device)
                losses = _token_losses(run, batch)
                whole += Tally.of(losses, batch.targets.flatten(), part, ids)
                show(start + len(part), len(rows), f"rows of {stream}")
    by_stream = {stream: part.means() for stream, part in whole.by_stream().items()}
    return by_stream | {"all": whole.means()} if by_stream else {}


def _token_losses(run: Run, batch: Batch) -> torch.Tensor:
    """(B * T,) float32 nats of each token."""
    hidden = batch.hidden(run.model).flatten(0, 1)
    return next_token_losses(hidden, run.model.head.weight, batch.targets.flatten())[0]


def bits_per_pixel(run: Run, test: ConditionTest | None) -> float | None:
    """Bits that the codes of a picture cost, per pixel of the picture that they stand for."""
    if test is None:
        return None
    return test.own_nats / math.log(2) / run.images.num_pixels
