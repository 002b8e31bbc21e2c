"""Judges a trained model: its losses, whether it uses its texts, what it gives back of pictures.

What it learnt is told from what it can do: every figure about held-out pairs has its twin about
pairs that it was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.engine.storage import commit_json
from pipeline.progress import working
from pipeline.sources.shapes import KINDS, ShapesSettings
from tokenizer_cache.manifest import Manifest
from trainer.evaluate.captions import CaptionF1, caption_f1
from trainer.evaluate.consistency import check_consistency
from trainer.evaluate.likelihood import (
    ConditionTest,
    Pair,
    bits_per_pixel,
    condition_test,
    held_out_losses,
    pairs_of,
)
from trainer.evaluate.retrieval import Gallery, Retrieval, retrieve
from trainer.evaluate.settings import EvaluateSettings
from trainer.evaluate.shapes import fresh_pairs, judge
from trainer.evaluate.share import Share
from trainer.evaluate.vqascore import VqaScore, vqascore
from trainer.generate.sample import draw, draw_codes
from trainer.generate.settings import PickSettings, SampleSettings
from trainer.run import EVALUATION, Run

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
        num_consistent: how many held-out pictures were alike on the paths that must agree
            (`consistency.check_consistency`).
        captions: how much of the captions of held-out pictures their descriptions say; None
            without pairs.
        retrieval: whether CLIP finds the true pictures of held-out captions; None without a CLIP.
        vqascore: what a vision-language model says of pictures that were drawn of held-out
            captions; None where none is asked for.
        shapes: Shape-GenEval, where the corpus has coloured shapes: for pictures `drawn` of fresh
            captions, their `true` pictures, these `reconstructed` from their codes, and the true
            ones with `shuffled` captions, the share of each kind that shows what is said; and
            `drawn_held_out` of captions with combinations that the corpus does not have.
    """

    step: int
    held_out: dict[str, dict[str, float]]
    bits_per_pixel: float | None
    condition: ConditionTest | None
    condition_trained: ConditionTest | None
    given_back: float | None
    given_back_trained: float | None
    num_consistent: int
    captions: CaptionF1 | None
    retrieval: Retrieval | None
    vqascore: VqaScore | None
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
        true, again, floor = (
            self.shapes[name]["all"].value for name in ("true", "reconstructed", "shuffled")
        )
        text = (
            f"Shape-GenEval: {_words(self.shapes['drawn'])} drawn of fresh captions show what is "
            f"said. Of the true pictures {true:.0%} do, of their reconstructions {again:.0%}, with "
            f"shuffled captions {floor:.0%}."
        )
        if "drawn_held_out" in self.shapes:
            text += (
                f" Of captions with a held-out combination of colour and shape: "
                f"{_words(self.shapes['drawn_held_out'])}."
            )
        return text

    def commit(self, folder: Path) -> None:
        """Write it with its sentences as the `evaluation.json` of a run's folder."""
        words = {"sentence": " ".join(self.sentences())}
        commit_json(folder / EVALUATION, asdict(self) | words)

    def sentences(self) -> list[str]:
        """All that there is to say."""
        found = [self.sentence(), self.sentence_of_drawing()]
        judged = (self.captions, self.retrieval, self.vqascore)
        found += [each.sentence() for each in judged if each is not None]
        found.append(self.sentence_of_shapes())
        if self.num_consistent:
            found.append(
                f"On {self.num_consistent} held-out pictures the loss of packed rows, the decoded "
                "pictures and sampling with a cache are what they must be."
            )
        return [each for each in found if each]


def evaluate(
    run: Run,
    manifest: Manifest,
    settings: EvaluateSettings,
    *,
    sampling: SampleSettings,
    shapes: ShapesSettings | None = None,
    gallery: Gallery | None = None,
    pictures: Mapping[str, Image.Image] | None = None,
) -> Evaluation:
    """Judge a run and write its `evaluation.json`.

    Args:
        run: the model.
        manifest: of shards of its vocabulary.
        settings: how much is looked at.
        sampling: how pictures are drawn and described.
        shapes: the corpus's source of coloured shapes, if it has one.
        gallery: held-out pictures and the corpus's CLIP, if it has any.
        pictures: true pictures by the ids of their records, for the check of consistency.

    Raises:
        InconsistentError: when paths that must agree do not.
        UserError: when `vqascore` asks for what is not installed.
    """
    held_out = pairs_of(manifest, "validation", settings.max_pairs)
    trained = pairs_of(manifest, "train", settings.max_pairs)
    with working("eval paths"):
        score = vqascore(run, held_out, settings, sampling)  # first, as it may fail
        num_consistent = check_consistency(run, manifest, pictures=pictures)
    with working("eval losses"):
        losses = held_out_losses(run, manifest, settings.max_rows)
        test, test_trained = (condition_test(run, each, settings) for each in (held_out, trained))
    with working("eval codes"):
        given_back = _given_back(run, held_out[: settings.max_drawn])
        given_back_trained = _given_back(run, trained[: settings.max_drawn])
    with working("eval captions"):
        captions = caption_f1(run, held_out, settings, sampling)
    retrieval = shares = None
    if gallery is not None:
        with working("eval search"):
            retrieval = retrieve(run, gallery, settings, sampling)
    if shapes is not None:
        with working("eval shapes"):
            shares = _shape_geneval(run, settings, sampling, shapes)
    evaluation = Evaluation(
        step=run.step,
        held_out=losses,
        bits_per_pixel=bits_per_pixel(run, test),
        condition=test,
        condition_trained=test_trained,
        given_back=given_back,
        given_back_trained=given_back_trained,
        num_consistent=num_consistent,
        captions=captions,
        retrieval=retrieval,
        vqascore=score,
        shapes=shares,
    )
    evaluation.commit(run.folder)
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

    def of_drawn(captions: list[str]) -> dict[str, Share]:
        each = captions * settings.pictures_per_shape
        return judge(draw(run, each, sampling), each)

    pairs = fresh_pairs(settings.num_shapes, shapes, held_out=False)
    pictures, captions = [picture for picture, _ in pairs], [caption for _, caption in pairs]
    again = run.images.decode_images(run.images.encode_images(pictures))
    turned = captions[len(KINDS) :] + captions[: len(KINDS)]
    found = {
        "drawn": of_drawn(captions),
        "true": judge(pictures, captions),
        "reconstructed": judge(again, captions),
        "shuffled": judge(pictures, turned),
    }
    if shapes.held_out:
        unseen = fresh_pairs(settings.num_shapes, shapes, held_out=True)
        found["drawn_held_out"] = of_drawn([caption for _, caption in unseen])
    return found


def _words(shares: Mapping[str, Share]) -> str:
    """The share of all kinds with its interval, and those of each kind."""
    low, high = shares["all"].interval
    kinds = ", ".join(f"{kind} {each.value:.0%}" for kind, each in shares.items() if kind != "all")
    return (
        f"{shares['all'].value:.0%} of {shares['all'].num} pictures (95 % interval {low:.0%} to "
        f"{high:.0%}; {kinds})"
    )
