"""VQAScore: how sure a vision-language model is that drawn pictures show their captions.

It is asked `Does this figure show "CAPTION"?`, and the score is the probability of its yes (Lin et
al., Evaluating Text-to-Visual Generation with Image-to-Text Generation, arXiv 2404.01291).

The package t2v_metrics has the models. What is called here was read in its source (version 3.1 of
June 2026; 3.0 has the same): `list_all_models()`, `VQAScore(model=…, device=…)`, and its call with
`images=[path], texts=[text]`, which gives one number a pair. Neither it nor the weights of its
models have been run with this module; the tests have a stand-in with that interface.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import numpy as np
from PIL import Image

from pipeline.device import best_device
from pipeline.errors import UserError
from trainer.evaluate.likelihood import Pair, derangement
from trainer.evaluate.settings import EvaluateSettings
from trainer.generate.sample import draw
from trainer.generate.settings import SampleSettings
from trainer.run import Run

_PACKAGE = "t2v_metrics"


@dataclass(frozen=True, slots=True, kw_only=True)
class VqaScore:
    """Mean scores, from 0 to 1.

    Attributes:
        model: the judge.
        num_pictures: the sample of each figure.
        drawn: of pictures that were drawn of held-out captions.
        reconstructed: of the true pictures as their codes have them, the ceiling.
        shuffled: of pictures that were drawn of other captions, the floor.
    """

    model: str
    num_pictures: int
    drawn: float
    reconstructed: float
    shuffled: float

    def sentence(self) -> str:
        """The figures in words."""
        return (
            f"VQAScore by {self.model}: {self.drawn:.3f} for {self.num_pictures} pictures drawn of "
            f"held-out captions, {self.reconstructed:.3f} for reconstructions of the true pictures "
            f"(ceiling), {self.shuffled:.3f} with other captions (floor)."
        )


def require_vqascore(settings: EvaluateSettings) -> ModuleType | None:
    """The package with the judge that is asked for; None where none is.

    Raises:
        UserError: when it is not installed or cannot be used, or has no such model.
    """
    if settings.vqascore is None:
        return None
    hint = "pip install t2v-metrics, and ffmpeg; or leave evaluate.vqascore out."
    try:
        package = importlib.import_module(_PACKAGE)
    except ImportError as error:
        raise UserError(f"evaluate.vqascore: {error}", hint) from error
    except RuntimeError as error:  # what it says without ffmpeg
        raise UserError(f"evaluate.vqascore: {_PACKAGE}: {error}", hint) from error
    known = package.list_all_models()
    if settings.vqascore not in known:
        message = f"evaluate.vqascore: {_PACKAGE} has no model {settings.vqascore}"
        raise UserError(message, f"It has {', '.join(known)}.")
    return package


def vqascore(
    run: Run, pairs: Sequence[Pair], settings: EvaluateSettings, sampling: SampleSettings
) -> VqaScore | None:
    """Draw held-out captions and have a vision-language model judge the pictures.

    Args:
        run: the model.
        pairs: held-out ones; the first `max_retrieved` are taken.
        settings: the judge, how many, and the seed of the shuffled captions.
        sampling: how they are drawn.

    Returns:
        None where no judge is asked for, where there are fewer than two pairs with different
        captions, and where half of them have the same.

    Raises:
        UserError: as `require_vqascore` does, and when the judge fails.
    """
    package = require_vqascore(settings)
    held = pairs[: settings.max_retrieved]
    captions = [pair.text for pair in held]
    others = derangement(captions, np.random.default_rng(settings.seed))
    if package is None or settings.vqascore is None or others is None:
        return None
    try:
        return _score(package, run, held, [captions[other] for other in others], settings, sampling)
    except Exception as error:  # whatever a foreign model raises
        message = f"evaluate.vqascore: {_PACKAGE} failed: {type(error).__name__}: {error}"
        raise UserError(message, "Mend that, or leave evaluate.vqascore out.") from error


def _score(
    package: ModuleType,
    run: Run,
    held: Sequence[Pair],
    others: Sequence[str],
    settings: EvaluateSettings,
    sampling: SampleSettings,
) -> VqaScore:
    assert settings.vqascore is not None, "it is asked for"  # noqa: S101
    judge = package.VQAScore(model=settings.vqascore, device=str(best_device()))
    captions = [pair.text for pair in held]

    def mean_score(pictures: Sequence[Image.Image], texts: Sequence[str]) -> float:
        scores = []
        with TemporaryDirectory(prefix="anymix-") as folder:
            path = Path(folder) / "picture.png"  # the judge takes paths
            for picture, text in zip(pictures, texts, strict=True):
                picture.save(path)
                scores.append(float(judge(images=[str(path)], texts=[text])))
        return float(np.mean(scores))

    drawn = draw(run, captions, sampling)
    again = run.images.decode_images(np.stack([pair.codes for pair in held]))
    return VqaScore(
        model=settings.vqascore,
        num_pictures=len(held),
        drawn=mean_score(drawn, captions),
        reconstructed=mean_score(again, captions),
        shuffled=mean_score(drawn, others),
    )
