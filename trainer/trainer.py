"""A training between two steps: the model, its optimisers, its loader, and held-out rows.

One cross-entropy over the whole sequence, whatever the modality of the next token.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from pipeline.device import best_device
from pipeline.errors import UserError
from tokenizer_cache.manifest import Manifest
from trainer.batch import Batch, build_model, collate, modalities
from trainer.checkpoint import Checkpoint
from trainer.held_out import held_out_rows
from trainer.loader import Loader
from trainer.loss import mean_by_modality, token_losses, training_loss
from trainer.optimizer import Optimizers, learning_rate_scale
from trainer.packing import Row
from trainer.settings import TrainSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What one step gave: nats per token by modality, its tokens, and how long it took."""

    losses: Mapping[str, float]
    num_tokens: int
    seconds: float


class Trainer:
    """Everything that changes while a model is trained; it starts at step 0."""

    def __init__(self, settings: TrainSettings, manifest: Manifest) -> None:
        """Draw the weights and open the shards.

        Args:
            settings: the whole training.
            manifest: of the shards.

        Raises:
            UserError: when the shards hold nothing that the mix asks for.
        """
        self.settings = settings
        self.loader = Loader(settings, manifest)
        if not self.loader.streams:
            raise UserError(
                f"{manifest.folder} has no training samples in the streams of the mix",
                "Look at `anymix status` for what was rejected, or give train.mix other streams.",
            )
        self.step = 0
        self._vocabulary = manifest.vocabulary
        self._modalities = modalities(manifest.vocabulary)
        self._device = best_device()
        self._model = build_model(settings.model, manifest.vocabulary, seed=settings.seed)
        self._model.to(self._device)
        self._optimizers = Optimizers(self._model, settings)
        self._held_out = [
            row
            for stream in self.loader.streams
            for row in held_out_rows(settings, manifest, stream, settings.evaluate_rows)
        ]

    @property
    def num_parameters(self) -> int:
        """Parameters of the model."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    def advance(self) -> StepResult:
        """Do one optimiser step."""
        started = time.monotonic()
        batch = self._collate(self.loader.next_rows(self.settings.rows_per_step))
        logits, targets = batch.logits(self._model).flatten(0, 1), batch.targets.flatten()
        loss, losses = training_loss(
            logits, targets, batch.weights.flatten(), z_loss=self.settings.z_loss
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), self.settings.clip_norm)
        self._optimizers.step(learning_rate_scale(self.step, self.settings))
        self.step += 1
        return StepResult(
            losses=mean_by_modality(losses, targets, self._modalities),
            num_tokens=targets.numel(),
            seconds=time.monotonic() - started,
        )

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Nats per token of the held-out rows, by modality; empty where nothing is held out."""
        losses, targets = [], []
        for start in range(0, len(self._held_out), self.settings.rows_per_step):
            batch = self._collate(self._held_out[start : start + self.settings.rows_per_step])
            targets.append(batch.targets.flatten())
            losses.append(token_losses(batch.logits(self._model).flatten(0, 1), targets[-1])[0])
        if not targets:
            return {}
        return mean_by_modality(torch.cat(losses), torch.cat(targets), self._modalities)

    def checkpoint(self, fingerprint: str) -> Checkpoint:
        """All that another trainer of the same `fingerprint` needs to go on from here."""
        return Checkpoint(
            step=self.step,
            fingerprint=fingerprint,
            settings=self.settings.model_dump(mode="json"),
            loader=self.loader.state_dict(),
            model=self._model.state_dict(),
            optimizer=self._optimizers.state_dict(),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on where the trainer of `checkpoint` was."""
        self.step = checkpoint.step
        self.loader.load_state_dict(checkpoint.loader)
        self._model.load_state_dict(checkpoint.model)
        self._optimizers.load_state_dict(checkpoint.optimizer)

    def _collate(self, rows: Sequence[Row]) -> Batch:
        return collate(rows, self._vocabulary, self._device)
