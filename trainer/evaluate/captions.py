"""How much of a picture's captions the model's own description of it says."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.evaluate.likelihood import Pair, derangement
from trainer.evaluate.settings import EvaluateSettings
from trainer.generate.sample import describe_codes
from trainer.generate.settings import SampleSettings
from trainer.run import Run

_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionF1:
    """Token overlap of descriptions and captions, from 0 to 1.

    Attributes:
        num_pictures: how many pictures were described.
        own: mean F1 with the picture's own captions.
        shuffled: the same with another picture's captions, the floor; None where there is no other.
    """

    num_pictures: int
    own: float
    shuffled: float | None

    def sentence(self) -> str:
        """The figures in words."""
        text = (
            f"Descriptions of {self.num_pictures} held-out pictures share the words of their "
            f"captions with an F1 of {self.own:.2f}"
        )
        if self.shuffled is not None:
            text += f", {self.shuffled:.2f} with another picture's captions"
        return f"{text}."


def caption_f1(
    run: Run, pairs: Sequence[Pair], settings: EvaluateSettings, sampling: SampleSettings
) -> CaptionF1 | None:
    """Describe the first `max_described` pictures of some pairs; None without any."""
    chosen = pairs[: settings.max_described]
    if not chosen:
        return None
    texts = describe_codes(run, np.stack([pair.codes for pair in chosen]), sampling)
    own = [best_f1(text, pair.captions) for text, pair in zip(texts, chosen, strict=True)]
    others = derangement([pair.text for pair in chosen], np.random.default_rng(settings.seed))
    shuffled = None
    if others is not None:
        turned = [best_f1(text, chosen[n].captions) for text, n in zip(texts, others, strict=True)]
        shuffled = float(np.mean(turned))
    return CaptionF1(num_pictures=len(chosen), own=float(np.mean(own)), shuffled=shuffled)


def best_f1(text: str, captions: Sequence[str]) -> float:
    """The F1 of a text with that caption of which it has most.

    Precision and recall count words as often as both have them (Rajpurkar et al., SQuAD, arXiv
    1606.05250, section 6.1); as in its `evaluate-v1.1.py`, capitals, punctuation and articles do
    not count.
    """
    return max(_f1(_words(text), _words(caption)) for caption in captions)


def _f1(found: Sequence[str], wanted: Sequence[str]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    num_same = (Counter(found) & Counter(wanted)).total()
    return 2 * num_same / (len(found) + len(wanted))


def _words(text: str) -> list[str]:
    plain = text.lower().translate(_PUNCTUATION)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()
