"""The weights of another run as the first ones of a new run: fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engine.fingerprint import fingerprint, hash_file
from pipeline.errors import UserError
from tokenizer_cache.vocabulary import Vocabulary, read_vocabulary
from trainer.run import VOCABULARY
from trainer.settings import ModelSettings, TrainSettings
from trainer.train.checkpoint import AVERAGE, best_checkpoint, read_state

_MAX_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Initial:
    """The averaged weights that a run begins with.

    Attributes:
        run: the folder of the run that they are of.
        checkpoint: the folder of its checkpoint.
        step: the optimiser steps behind them.
        fingerprint: of their bytes, which decides the new run.
    """

    run: Path
    checkpoint: Path
    step: int
    fingerprint: str

    def to_json(self) -> dict[str, Any]:
        """What the new run's folder keeps about them."""
        return {"run": str(self.run), "step": self.step, "weights": self.fingerprint}


def find_initial(run: Path, settings: TrainSettings, vocabulary: Vocabulary) -> Initial:
    """The weights that `run` is used with: the average of its best checkpoint by held-out loss.

    Args:
        run: the run to begin from.
        settings: of the new run.
        vocabulary: of the new run's shards.

    Raises:
        UserError: when it holds no model, or one of another shape or vocabulary.
    """
    checkpoint = best_checkpoint(run)
    if checkpoint is None:
        raise UserError(f"--init {run}: the folder holds no trained model", "Give a finished RUN.")
    state = read_state(checkpoint)
    before = TrainSettings.model_validate(state["settings"]).model
    if before != settings.model:
        differing = "; ".join(_sizes_that_differ(before, settings.model))
        raise UserError(
            f"--init {run} has a model of another size: {differing}",
            "Give the recipe the model of that run.",
        )
    differing_ids = list(_ids_that_differ(read_vocabulary(run / VOCABULARY), vocabulary))
    if differing_ids:
        more = len(differing_ids) - _MAX_NAMED
        shown = "; ".join(differing_ids[:_MAX_NAMED]) + (f"; and {more} more" if more > 0 else "")
        raise UserError(
            f"--init {run} gives its ids another meaning than these shards: {shown}",
            "Fill the corpus with the tokenizers of that run: image_tokenizer and text_tokenizer "
            f"may name folders below {run}/tokenizers.",
        )
    weights = fingerprint(weights=hash_file(checkpoint / AVERAGE))
    return Initial(run=run, checkpoint=checkpoint, step=state["step"], fingerprint=weights)


def _sizes_that_differ(before: ModelSettings, now: ModelSettings) -> Iterator[str]:
    old, new = before.model_dump(), now.model_dump()
    for name in old:
        if old[name] != new[name]:
            yield f"its {name} is {old[name]}, the recipe's train.model.{name} is {new[name]}"


def _ids_that_differ(before: Vocabulary, now: Vocabulary) -> Iterator[str]:
    """What is not the same in two vocabularies; special tokens have their ids by the format."""
    for old, new in zip(before.ranges, now.ranges, strict=False):
        if old != new:
            where = f"ids {old.start} to {old.stop - 1}"
            if (old.modality, old.start, old.size) == (new.modality, new.start, new.size):
                yield f"{where} are {old.modality} of another tokenizer"
            else:
                yield f"{where} are {old.modality} there, {new.start} to {new.stop - 1} are " + (
                    f"{new.modality} here"
                )
    if before.size != now.size:
        yield f"there are {before.size} ids there and {now.size} here"
