"""A run between two steps: the model, its moving average, its optimisers and loader, held-out rows.

One cross-entropy over the whole sequence, whatever the modality of the next token; or, where the
weights of another run are aligned, the loss of `alignment`.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.device import best_device
from pipeline.errors import FAILED, UserError
from tokenizer_cache.manifest import Manifest
from trainer.data.batch import Batch, build_model, collate, corrupt_codes, modalities
from trainer.data.held_out import held_out_rows
from trainer.data.loader import Loader
from trainer.data.packing import Row
from trainer.model.decoder import Decoder
from trainer.settings import TrainSettings
from trainer.train.alignment import Alignment, Learnt
from trainer.train.checkpoint import Checkpoint
from trainer.train.loss import next_token_losses, training_loss
from trainer.train.metrics import flops_per_token, measure_norms, measure_peak_flops
from trainer.train.optimizer import Optimizers, learning_rate_scale
from trainer.train.stages import Stage, freeze, stage_at, stages_of
from trainer.train.tally import Tally

_MAX_NAMED = 20
"""Samples of a bad batch that a message names."""


class NonFiniteError(UserError):
    """A step whose loss or gradient is NaN or infinite; nothing has been updated by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What one step gave.

    Attributes:
        losses: nats per token by modality.
        tally: the same by stream and task, and how many targets there were.
        alignment: the figures of `alignment.Learnt`; empty without an alignment.
        stage: number of the stage that the step belongs to.
        num_tokens: tokens of documents; padding does not count.
        padding: share of the step's positions that are padding.
        gradient_norm: of the whole gradient, before it is clipped.
        learning_rate_scale: the learning rate as a share of its peak.
        seconds: how long the step took.
    """

    losses: Mapping[str, float]
    tally: Tally
    alignment: Mapping[str, float]
    stage: int
    num_tokens: int
    padding: float
    gradient_norm: float
    learning_rate_scale: float
    seconds: float


class Trainer:
    """Everything that changes while a model is trained; it starts at step 0."""

    def __init__(
        self, settings: TrainSettings, manifest: Manifest, *, device: torch.device | None = None
    ) -> None:
        """Draw the weights and open the shards.

        Args:
            settings: of the run.
            manifest: of the shards.
            device: where to train; the best one of this machine by default.

        Raises:
            UserError: when the shards hold nothing that the mix asks for.
        """
        self.settings = settings
        self._stages = stages_of(settings)
        self._loaders = [_open_loader(stage, manifest) for stage in self._stages]
        self.step = 0
        self._modalities = modalities(manifest.vocabulary)
        self._device = device or best_device()
        self._model = build_model(settings.model, manifest.vocabulary, seed=settings.seed)
        self._model.to(self._device)
        self._average = copy.deepcopy(self._model).requires_grad_(requires_grad=False).eval()
        self._model.recomputes_activations = settings.activation_checkpointing
        if settings.compile == "auto" and self._device.type == "cuda":
            self._model.compile_blocks()
        self._optimizers = Optimizers(self._model, settings)
        self._alignment: Alignment | None = None
        self._vocabulary = manifest.vocabulary
        self._enter(self._stages[0])
        self._held_out = [
            row
            for stream in dict.fromkeys(name for each in self._loaders for name in each.streams)
            for row in held_out_rows(settings, manifest, stream, settings.evaluate_rows)
        ]

    @property
    def loader(self) -> Loader:
        """What gives the rows of the present stage."""
        return self._loaders[self._stage.number]

    @property
    def stage_is_over(self) -> bool:
        """Whether the last step was the last one of its stage."""
        return self.step == self._stage.end

    @property
    def average(self) -> Decoder:
        """The moving average of the weights, as the model that a run is used with."""
        return self._average

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of a token's way through the matrices and back."""
        return flops_per_token(self._model)

    def measure_peak_flops(self) -> float:
        """Floating-point operations a second of matrices as wide as the model, where it trains."""
        return measure_peak_flops(self._device, self.settings.model.width)

    def begin_with(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of another run of the same model as the first ones."""
        self._model.load_state_dict(weights)
        self._average.load_state_dict(weights)

    def align_with(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights that the run has begun with as the reference of its alignment."""
        assert self.settings.alignment is not None, "it is asked for"  # noqa: S101
        reference = copy.deepcopy(self._average)
        reference.load_state_dict(weights)
        self._alignment = Alignment(self.settings.alignment, reference, self._vocabulary)

    def advance(self) -> StepResult:
        """Do one optimiser step.

        The gradient is that of all the step's rows at once, however many go through the model at a
        time: each micro-batch is divided by the weight of the whole step.

        Raises:
            NonFiniteError: when the loss or the gradient is NaN or infinite. The weights are those
                of the step before.
        """
        started = time.monotonic()
        if (stage := stage_at(self._stages, self.step)) is not self._stage:
            self._enter(stage)
        rows = self.loader.next_rows(self.settings.rows_per_step)
        aligned: dict[str, float] = {}
        if self._alignment is None:
            losses, targets = self._fit(rows)
        else:
            losses, targets, aligned = self._align(self._alignment, self._model, rows)
        parameters = list(self._model.parameters())
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip_norm))
        tally = Tally.of(losses, targets, rows, self._modalities)
        means = tally.means()
        if not (math.isfinite(norm) and all(map(math.isfinite, means.values()))):
            self._optimizers.zero_grad()
            raise self._non_finite(rows, norm, means)
        scale = learning_rate_scale(self.step, self.settings) * self._stage.learning_rate_scale
        self._optimizers.step(scale)
        self._update_average()
        self.step += 1
        num_tokens = sum(int((row.documents > 0).sum()) for row in rows)
        return StepResult(
            losses=means,
            tally=tally,
            alignment=aligned,
            stage=self._stage.number,
            num_tokens=num_tokens,
            padding=1 - num_tokens / (len(rows) * self.settings.seq_len),
            gradient_norm=norm,
            learning_rate_scale=scale,
            seconds=time.monotonic() - started,
        )

    @torch.no_grad()
    def evaluate(self) -> Tally:
        """What held-out rows cost with the averaged weights; empty where there are none."""
        if not self._held_out:
            return Tally.empty(self._modalities)
        parts = [self._held_out_losses(batch) for batch in self._micro_batches(self._held_out)]
        losses, targets = (torch.cat(each) for each in zip(*parts, strict=True))
        return Tally.of(losses, targets, self._held_out, self._modalities)

    @torch.no_grad()
    def held_out_alignment(self) -> dict[str, float]:
        """The loss of the alignment on held-out rows, as `alignment`; empty without one."""
        if self._alignment is None or not self._held_out:
            return {}
        learnt = self._align(self._alignment, self._average, self._held_out)
        return {"alignment": learnt.figures["loss"]}

    def norms(self) -> dict[str, float]:
        """How large queries, keys and logits are in the first held-out rows; see `measure_norms`.

        Empty where nothing is held out.
        """
        batch = next(self._micro_batches(self._held_out), None)
        if batch is None:
            return {}
        with self._autocast():
            return measure_norms(self._average, batch)

    def checkpoint(self, decided: Mapping[str, Any], *, held_out: float | None) -> Checkpoint:
        """All that another trainer needs to resume here.

        Args:
            decided: what decides the run, by name.
            held_out: loss of held-out rows at this step, the less the better; None where it was not
                measured.
        """
        return Checkpoint(
            step=self.step,
            decided=decided,
            settings=self.settings.model_dump(mode="json"),
            loader=self.loader.state_dict(),
            held_out=held_out,
            model=self._model.state_dict(),
            average=self._average.state_dict(),
            optimizer=self._optimizers.state_dict(),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Resume where the trainer of `checkpoint` was."""
        self.step = checkpoint.step
        # Between two stages the loader's state is that of the one that has ended.
        self._enter(stage_at(self._stages, max(checkpoint.step - 1, 0)))
        self.loader.load_state_dict(checkpoint.loader)
        self._model.load_state_dict(checkpoint.model)
        self._average.load_state_dict(checkpoint.average)
        self._optimizers.load_state_dict(checkpoint.optimizer)

    def _fit(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Add up the gradient of a step's cross-entropy.

        Returns:
            (B * T,) nats without gradient, and (B * T,) targets.
        """
        total_weight = max(sum(float(row.weights.sum()) for row in rows), 1e-9)
        losses, targets = [], []
        for batch in self._corrupted(self._micro_batches(rows)):
            with self._autocast():
                loss, each = training_loss(
                    batch.hidden(self._model).flatten(0, 1),
                    self._model.head.weight,
                    batch.targets.flatten(),
                    batch.weights.flatten(),
                    total_weight=total_weight,
                    z_loss=self.settings.z_loss,
                )
            loss.backward()
            losses.append(each)
            targets.append(batch.targets.flatten())
        return torch.cat(losses), torch.cat(targets)

    def _align(self, alignment: Alignment, model: Decoder, rows: Sequence[Row]) -> Learnt:
        size = self._rows_at_once
        return alignment.learn(model, rows, micro_batch_size=size, autocast=self._autocast)

    @property
    def _rows_at_once(self) -> int:
        return self.settings.micro_batch_size or self.settings.rows_per_step

    def _enter(self, stage: Stage) -> None:
        self._stage = stage
        freeze(self._model, stage.frozen)

    def _held_out_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B * T,) nats, and (B * T,) targets."""
        targets = batch.targets.flatten()
        with self._autocast():
            hidden = batch.hidden(self._average).flatten(0, 1)
            return next_token_losses(hidden, self._average.head.weight, targets)[0], targets

    def _micro_batches(self, rows: Sequence[Row]) -> Iterator[Batch]:
        size = self._rows_at_once
        for start in range(0, len(rows), size):
            yield collate(rows[start : start + size], self._device)

    def _corrupted(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The micro-batches of a step with some of their codes replaced, as the settings say."""
        most, codes = self.settings.code_corruption, self._modalities.get("image")
        if not most or codes is None:
            yield from batches
            return
        generator = torch.Generator().manual_seed(_seed_of(self.settings.seed, self.step))
        for batch in batches:
            yield corrupt_codes(batch, codes, most, generator)

    def _autocast(self) -> torch.autocast:
        """Compute in bfloat16 where the device is made for it; the weights stay float32."""
        kind = self._device.type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=kind == "cuda")

    @torch.no_grad()
    def _update_average(self) -> None:
        """Move the average towards the weights, faster in the first steps.

        The decay is min(ema_decay, (1 + step) / (10 + step)), so that the first, random weights are
        soon forgotten (`tf.train.ExponentialMovingAverage`'s `num_updates`).
        """
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        averages = list[Tensor](self._average.parameters())
        weights = list[Tensor](self._model.parameters())
        torch._foreach_lerp_(averages, weights, 1 - decay)

    def _non_finite(
        self, rows: Sequence[Row], norm: float, means: Mapping[str, float]
    ) -> NonFiniteError:
        shown = ", ".join(f"{name} {loss:.3g}" for name, loss in means.items())
        keys = self.loader.sample_keys(rows)
        named = ", ".join(keys[:_MAX_NAMED])
        more = f" and {len(keys) - _MAX_NAMED} more" if len(keys) > _MAX_NAMED else ""
        return NonFiniteError(
            f"step {self.step + 1}: the loss ({shown} nats) or the gradient's norm ({norm:.3g}) is "
            f"not a finite number. Nothing was updated. The step's samples are {named}{more}",
            "Look at these with `anymix explain`. If they are sound, lower train.learning_rate and "
            "train.matrix_learning_rate, or lengthen train.warmup. The checkpoints before this "
            "step are kept.",
            exit_code=FAILED,
        )


def _open_loader(stage: Stage, manifest: Manifest) -> Loader:
    loader = Loader(stage.settings, manifest)
    if not loader.streams:
        where = f" of stage {stage.number + 1}" if stage.number else ""
        raise UserError(
            f"{manifest.folder} has no training samples in the streams of the mix{where}",
            "Look at `anymix status` for what was rejected, or give train.mix other streams.",
        )
    return loader


def _seed_of(seed: int, step: int) -> int:
    """A step's own seed, so that a resumed run draws what it would have drawn."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> 1)
