"""Judges a trained model: its losses, whether it uses its texts, what it gives back of pictures.

What it learnt is told from what it can do: every figure about held-out pairs has its twin about
pairs that it was trained on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from pipeline.engine.storage import commit_json
from pipeline.sources.shapes import KINDS, ShapesSettings
from tokenizer_cache.manifest import Manifest
from trainer.evaluate.likelihood import (
    ConditionTest,
    Pair,
    bits_per_pixel,
    condition_test,
    held_out_losses,
    pairs_of,
)
from trainer.evaluate.shapes import Share, fresh_pairs, judge
from trainer.generate.sample import draw, draw_codes
from trainer.generate.settings import PickSettings, SampleSettings
from trainer.run import EVALUATION, Run
from trainer.settings import EvaluateSettings

_FRESH = 1_000_003
"""Added to a source's seed, so that its pictures are others."""
_GREEDY = SampleSettings(image=PickSettings(temperature=0), cfg_scale=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What is known of a trained model.

    Attributes:
        step: optimiser steps behind it.
        held_out: nats per token by stream and modality; `all` holds the streams together.
        bits_per_pixel: of the codes of held-out pictures, after their texts; None without pairs.
        condition: on held-out pairs; None where fewer than two pictures have different texts.
        condition_trained: the same on pairs that the model was trained on.
        given_back: share of a held-out picture's codes that greedy drawing from its text, without
            guidance, puts in their places; None without pairs.
        given_back_trained: the same of pictures that the model was trained on.
        shapes: Shape-GenEval, where the corpus has coloured shapes: for pictures `drawn` of fresh
            captions, their `true` pictures, these `reconstructed` from their codes, and the true
            ones with `shuffled` captions, the share of each kind that shows what is said.
    """

    step: int
    held_out: dict[str, dict[str, float]]
    bits_per_pixel: float | None
    condition: ConditionTest | None
    condition_trained: ConditionTest | None
    given_back: float | None
    given_back_trained: float | None
    shapes: dict[str, dict[str, Share]] | None

    def sentence(self) -> str:
        """Whether the model uses its texts, in words."""
        test = self.condition
        if test is None:
            return "There are too few held-out pairs to tell whether the model uses its texts."
        verdict = (
            "the interval lies above 0, so the model uses its texts"
            if test.excludes_zero
            else "the interval contains 0, so it is not shown that the model uses its texts"
        )
        text = (
            f"On {test.num_pairs} held-out pairs a picture is {test.gain_nats:.2f} nats likelier "
            f"after its own text than after another picture's (95 % interval {test.low:.2f} to "
            f"{test.high:.2f}; {test.own_nats:.1f} against {test.shuffled_nats:.1f} nats): "
            f"{verdict}."
        )
        if self.condition_trained is not None:
            text += f" On trained pairs the gain is {self.condition_trained.gain_nats:.2f} nats."
        return text

    def sentence_of_drawing(self) -> str:
        """What drawing gives back, in words; nothing where no picture was drawn."""
        shares = [
            f"{share:.0%} of the codes of {what} pictures"
            for share, what in ((self.given_back_trained, "trained"), (self.given_back, "held-out"))
            if share is not None
        ]
        if not shares:
            return ""
        return (
            f"Greedy drawing from the texts, without guidance, gives back {' and '.join(shares)}."
        )

    def sentence_of_shapes(self) -> str:
        """Shape-GenEval in words; nothing where the corpus has no coloured shapes."""
        if self.shapes is None:
            return ""
        drawn = self.shapes["drawn"]["all"]
        low, high = drawn.interval
        kinds = ", ".join(
            f"{kind} {share.value:.0%}"
            for kind, share in self.shapes["drawn"].items()
            if kind != "all"
        )
        true, again, floor = (
            self.shapes[name]["all"].value for name in ("true", "reconstructed", "shuffled")
        )
        return (
            f"Shape-GenEval: {drawn.value:.0%} of {drawn.num} pictures drawn of fresh captions "
            f"show what is said (95 % interval {low:.0%} to {high:.0%}; {kinds}). Of the true "
            f"pictures {true:.0%} do, of their reconstructions {again:.0%}, with shuffled captions "
            f"{floor:.0%}."
        )


def evaluate(
    run: Run,
    manifest: Manifest,
    settings: EvaluateSettings,
    *,
    sampling: SampleSettings,
    shapes: ShapesSettings | None = None,
) -> Evaluation:
    """Judge a run and write its `evaluation.json`.

    Args:
        run: the model.
        manifest: of shards of its vocabulary.
        settings: how much is looked at.
        sampling: how pictures of shapes are drawn.
        shapes: the corpus's source of coloured shapes, if it has one.
    """
    held_out = pairs_of(manifest, "validation", settings.max_pairs)
    trained = pairs_of(manifest, "train", settings.max_pairs)
    test = condition_test(run, held_out, settings)
    evaluation = Evaluation(
        step=run.step,
        held_out=held_out_losses(run, manifest, settings.max_rows),
        bits_per_pixel=bits_per_pixel(run, test),
        condition=test,
        condition_trained=condition_test(run, trained, settings),
        given_back=_given_back(run, held_out[: settings.max_drawn]),
        given_back_trained=_given_back(run, trained[: settings.max_drawn]),
        shapes=None if shapes is None else _shape_geneval(run, settings, sampling, shapes),
    )
    sentences = (
        evaluation.sentence(),
        evaluation.sentence_of_drawing(),
        evaluation.sentence_of_shapes(),
    )
    words = {"sentence": " ".join(filter(None, sentences))}
    commit_json(run.folder / EVALUATION, asdict(evaluation) | words)
    return evaluation


def _given_back(run: Run, pairs: list[Pair]) -> float | None:
    """Share of the codes of some pictures that greedy drawing from their texts gives back."""
    if not pairs:
        return None
    drawn = draw_codes(run, [pair.text for pair in pairs], _GREEDY)  # (n, h, w)
    return float((drawn == np.stack([pair.codes for pair in pairs])).mean())


def _shape_geneval(
    run: Run, settings: EvaluateSettings, sampling: SampleSettings, shapes: ShapesSettings
) -> dict[str, dict[str, Share]]:
    """How often pictures of captions that no corpus of the source holds show what is said."""
    pairs = fresh_pairs(settings.num_shapes, size=shapes.size, seed=shapes.seed + _FRESH)
    pictures, captions = [picture for picture, _ in pairs], [caption for _, caption in pairs]
    again = run.images.decode_images(run.images.encode_images(pictures))
    turned = captions[len(KINDS) :] + captions[: len(KINDS)]
    return {
        "drawn": judge(draw(run, captions, sampling), captions),
        "true": judge(pictures, captions),
        "reconstructed": judge(again, captions),
        "shuffled": judge(pictures, turned),
    }
