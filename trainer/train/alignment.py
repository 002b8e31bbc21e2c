"""Condition contrastive alignment: fine-tuning after which a model needs no guidance to draw.

A picture is to become likelier after its own text, and less likely after the text of another one,
than a frozen reference has it: the weights that the training begins with. What is learnt is what
guidance does to the probabilities at each draw, for half of its cost.

Source: Chen et al., Toward Guidance-Free AR Visual Generation via Condition Contrastive Alignment,
arXiv 2410.09347; where text and code might be read in two ways, as `LlamaGen_finetune.py` of
thu-ml/CCA has it.

Legend: B rows, T tokens, N documents of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tokenizer_cache.vocabulary import Vocabulary
from trainer.data.batch import collate
from trainer.data.packing import Row, add_document, empty_row, pack
from trainer.model.decoder import Decoder
from trainer.settings import AlignmentSettings
from trainer.train.loss import next_token_losses

_BRACKETS = 2
"""Tokens of a text that has been emptied."""


class AlignedRow(NamedTuple):
    """A row of pictures after texts.

    Attributes:
        row: the documents.
        weights: (N,) float32: what each document counts. Above 0 its picture is to become likelier,
            below 0 less likely; 0 where there is no document.
    """

    row: Row
    weights: np.ndarray


class Scored(NamedTuple):
    """What two models think of some rows.

    Attributes:
        ratios: (N,) float32 nats: how much likelier the model finds each document's codes than the
            reference does.
        losses: (B * T,) float32 nats of the model for each token, without gradient.
        targets: (B * T,) int64.
    """

    ratios: Tensor
    losses: Tensor
    targets: Tensor


class Learnt(NamedTuple):
    """What a model has learnt of some rows, whose gradient has been added up.

    Attributes:
        losses: (B * T,) nats of each token after its own text, without gradient.
        targets: (B * T,) int64.
        figures: the `loss`, and the mean nats by which pictures have become likelier after their
            `own` texts and after those of `others`.
    """

    losses: Tensor
    targets: Tensor
    figures: dict[str, float]


class _Document(NamedTuple):
    """A picture after its text: where it is, and its tokens up to `<img>` and from there on."""

    row: int
    number: int
    text: np.ndarray
    picture: np.ndarray
    places: np.ndarray


class Alignment:
    """The loss of a model against its reference."""

    def __init__(
        self, settings: AlignmentSettings, reference: Decoder, vocabulary: Vocabulary
    ) -> None:
        """Take what the model is compared with.

        Args:
            settings: of the alignment.
            reference: frozen, in evaluation mode, where the model is.
            vocabulary: of the model.
        """
        self._settings = settings
        self._reference = reference
        self._codes = vocabulary.image
        self._begin, self._pad = vocabulary.special("<img>"), vocabulary.special("<pad>")

    def learn(
        self,
        model: Decoder,
        rows: Sequence[Row],
        *,
        micro_batch_size: int,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> Learnt:
        """Add up the gradient of a step, where gradients are wanted.

        Args:
            model: what learns.
            rows: of the step, at least one, pictures after their own texts.
            micro_batch_size: how many rows go through the model at once.
            autocast: the kind of numbers that both models compute in.
        """
        aligned = self.rows(rows)
        total = max(1, sum(int((each.weights > 0).sum()) for each in aligned))
        parts, weights, sums = [], [], []
        for start in range(0, len(aligned), micro_batch_size):
            part = aligned[start : start + micro_batch_size]
            counts = torch.from_numpy(np.concatenate([each.weights for each in part]))  # (N,)
            with autocast():
                scored = self.score(model, [each.row for each in part])
                loss = self.loss(scored.ratios, counts.to(scored.ratios.device), total=total)
            if loss.requires_grad:
                loss.backward()
            parts.append(scored._replace(ratios=scored.ratios.detach().cpu()))
            weights.append(counts)
            sums.append(float(loss.detach()))
        ratios, counts = torch.cat([each.ratios for each in parts]), torch.cat(weights)
        figures = {"loss": sum(sums)}
        if (counts > 0).any():  # else all documents are damaged
            figures["own"] = float(ratios[counts > 0].mean())
        if (counts < 0).any():
            figures["others"] = float(ratios[counts < 0].mean())
        num_own = len(rows) * len(rows[0].tokens)  # the rows of other texts come behind
        return Learnt(
            losses=torch.cat([each.losses for each in parts])[:num_own],
            targets=torch.cat([each.targets for each in parts])[:num_own],
            figures=figures,
        )

    def rows(self, own: Sequence[Row]) -> list[AlignedRow]:
        """Rows as they were packed, and then their pictures after the texts of others.

        Each picture gets the text of the next one, so that a text is given as often wrongly as
        rightly (the code's `torch.roll`). A text that was dropped stays dropped: without a
        condition the model is to remain as it is, so the picture counts twice as its own. So does
        one whose next text is the same.
        """
        documents = list(self._documents(own))
        weights = [np.zeros(int(row.documents.max()), np.float32) for row in own]
        with_text = [each for each in documents if len(each.text) > _BRACKETS]
        nexts = with_text[1:] + with_text[:1]
        others = [
            (each, other.text)
            for each, other in zip(with_text, nexts, strict=True)
            if not np.array_equal(each.text, other.text)
        ]
        for each in documents:
            weights[each.row][each.number - 1] = 2
        for each, _ in others:
            weights[each.row][each.number - 1] = 1
        aligned = [AlignedRow(*pair) for pair in zip(own, weights, strict=True)]
        return aligned + self._packed(others, seq_len=len(own[0].tokens))

    def score(self, model: Decoder, rows: Sequence[Row]) -> Scored:
        """Read some rows with the model and with the reference."""
        device = next(model.parameters()).device
        batch = collate(rows, device)
        targets = batch.targets.flatten()  # (B * T,)
        is_code = (targets >= self._codes.start) & (targets < self._codes.stop)
        firsts = np.cumsum([0, *(int(row.documents.max()) for row in rows)])
        numbers = np.concatenate(
            [first + row.documents - 1 for first, row in zip(firsts, rows, strict=False)]
        )  # (B * T,)
        owners = torch.from_numpy(numbers).to(device)[is_code]
        losses = next_token_losses(batch.hidden(model).flatten(0, 1), model.head.weight, targets)[0]
        with torch.no_grad():
            hidden = batch.hidden(self._reference).flatten(0, 1)
            before = next_token_losses(hidden, self._reference.head.weight, targets)[0]
        gains = (before - losses)[is_code]
        ratios = gains.new_zeros(int(firsts[-1])).index_add(0, owners, gains)  # (N,)
        return Scored(ratios, losses.detach(), targets)

    def loss(self, ratios: Tensor, weights: Tensor, *, total: float) -> Tensor:
        """The loss of some documents; its sum over the parts of a step is that of the step.

        For weight w and ratio r, |w| log(1 + exp(-sign(w) beta r)).

        Args:
            ratios: (N,) float32 nats, from `score`.
            weights: (N,) float32, from `rows`.
            total: the documents of the step that have their own text.
        """
        scaled = self._settings.beta * weights.sign() * ratios
        # The code divides by lambda as well, so that its size does not decide the gradient's.
        return (weights.abs() * F.softplus(-scaled)).sum() / (total * max(self._settings.weight, 1))

    def _documents(self, rows: Sequence[Row]) -> Iterator[_Document]:
        for place, row in enumerate(rows):
            for number in range(1, int(row.documents.max()) + 1):
                is_own = row.documents == number
                tokens, places = row.tokens[is_own], row.places[is_own]
                begins = np.flatnonzero(tokens == self._begin)
                if len(begins):  # else it was damaged, and has become padding
                    at = int(begins[0])
                    yield _Document(place, number, tokens[:at], tokens[at:], places[at:])

    def _packed(
        self, others: Sequence[tuple[_Document, np.ndarray]], *, seq_len: int
    ) -> list[AlignedRow]:
        """Rows of pictures after the texts of others; a text that a row has no room for is cut."""
        texts = [_cut(text, seq_len - len(each.picture)) for each, text in others]
        lengths = [
            len(text) + len(each.picture) for (each, _), text in zip(others, texts, strict=True)
        ]
        packed = []
        for numbers in pack(np.array(lengths, np.int64), seq_len=seq_len):
            row, start = empty_row(seq_len=seq_len, pad=self._pad), 0
            for place, number in enumerate(numbers.tolist(), 1):
                document, text = others[number][0], texts[number]
                stop = start + lengths[number]
                row.tokens[start:stop] = np.concatenate((text, document.picture))
                row.places[start + len(text) : stop] = document.places
                add_document(row, place, start, stop)
                start = stop
            weights = np.full(len(numbers), -self._settings.weight, np.float32)
            packed.append(AlignedRow(row, weights))
        return packed


def _cut(text: np.ndarray, room: int) -> np.ndarray:
    """A text of at most `room` tokens, its closing bracket kept."""
    return text if len(text) <= room else np.concatenate((text[: room - 1], text[-1:]))
