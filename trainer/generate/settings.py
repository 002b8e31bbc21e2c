"""What a recipe says about drawing from a trained model. Figures without a source are ours."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from pipeline.settings import Settings


class PickSettings(Settings):
    """Which of the tokens that may come next are drawn, after the model's probabilities.

    `temperature` counts first, and then the tail is cut off by `top_k`, `top_p` and `min_p`.
    """

    temperature: float = Field(default=1.0, ge=0)
    """0 takes the likeliest."""

    top_k: int = Field(default=100, ge=1)
    """Draw from the k likeliest only."""

    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw from the likeliest that together have this share of those of `top_k`: nucleus sampling
    (Holtzman et al., arXiv 1904.09751)."""

    min_p: float = Field(default=0.0, ge=0, le=1)
    """Draw from those that are at least so likely as a share of the likeliest (Nguyen et al., arXiv
    2407.01082, section 3)."""


class TextPickSettings(PickSettings):
    """The same for texts, where the likeliest is taken by default."""

    temperature: float = Field(default=0.0, ge=0)
    """0 takes the likeliest."""


class SampleSettings(Settings):
    """How pictures, texts and sounds are drawn from the model."""

    cfg_scale: float = Field(default=2.0, ge=0)
    """Classifier-free guidance of pictures and sounds: 1 follows the text as trained, more follows
    it harder (Janus-Pro samples with 5)."""

    image: PickSettings = PickSettings(temperature=0.5)
    """How the codes of pictures are drawn. `python -m tests.benchmarks.sampling RUN` finds the best
    values for a model. For a run of jobs/recipes/shapes.yaml, 100 fresh captions: guidance 2 shows
    what is said in 0.44 (temperature 0), 0.39 (0.5) and 0.34 (1, min_p 0.1) of the pictures, and
    guidance 1 in 0.29, 0.27 and 0.29; guidance 3 with temperature 1 did in 0.12 of 400."""

    text: TextPickSettings = TextPickSettings()
    """How texts are drawn, and what comes next where a segment has ended."""

    audio: PickSettings = PickSettings()
    """How the codes of sounds are drawn."""

    caption_max_tokens: int = Field(default=32, ge=1)
    """A caption is cut after that many tokens."""

    seed: int = 0
    """The same seed draws the same pictures."""

    num_sheet_pairs: int = Field(default=16, ge=1)
    """Pairs in each half of the sample sheet: held-out ones, and ones that were trained on."""

    @model_validator(mode="before")
    @classmethod
    def _read_flat_keys(cls, given: Any) -> Any:  # noqa: ANN401 - unchecked input
        """Runs keep their recipe; until December 2026 it had one `temperature` and one `top_k`."""
        if not isinstance(given, dict):
            return given
        rest = dict(given)
        for old, modality, key in _FLAT_KEYS:
            if old not in given:
                continue
            rest.pop(old, None)
            held = rest.get(modality, {})
            if not isinstance(held, dict) or key in held:
                message = f"{old} is the old name of {modality}.{key}, and both are given"
                raise ValueError(message)
            rest[modality] = {**held, key: given[old]}
        return rest


_FLAT_KEYS = (
    ("temperature", "image", "temperature"),
    ("top_k", "image", "top_k"),
    ("top_k", "text", "top_k"),
    ("caption_temperature", "text", "temperature"),
)
"""Old key, and what it is now."""
