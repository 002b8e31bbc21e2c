"""What a recipe says about judging a trained model. Figures without a source are ours."""

from __future__ import annotations

from pydantic import Field

from pipeline.settings import Settings


class EvaluateSettings(Settings):
    """How a trained model is judged on held-out records."""

    max_pairs: int = Field(default=400, ge=2)
    """Pairs in the test of whether the model uses its condition."""

    max_rows: int = Field(default=256, ge=1)
    """Rows of held-out samples in the loss of each stream."""

    max_drawn: int = Field(default=32, ge=0)
    """Pictures that are drawn of trained and of held-out texts, to see how many of their codes come
    back; 0 draws none."""

    max_retrieved: int = Field(default=200, ge=0)
    """Held-out captions that are drawn to see whether the corpus's CLIP finds their true pictures,
    and for `vqascore`; 0 draws none."""

    vqascore: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """The model of t2v_metrics that judges drawn held-out captions, such as `qwen3-vl-2b`; the
    package is installed apart, and wants a GPU. None without one."""

    max_described: int = Field(default=100, ge=0)
    """Held-out pictures whose descriptions are compared with their captions."""

    num_shapes: int = Field(default=100, ge=5)
    """Fresh captions of coloured shapes that are drawn, where the corpus has such a source; as many
    again where combinations are held out."""

    pictures_per_shape: int = Field(default=4, ge=1)
    """Pictures that are drawn of each of these captions (GenEval, arXiv 2310.11513, takes 4)."""

    num_resamples: int = Field(default=10_000, ge=100)
    """Bootstrap resamples behind the 95 % interval."""

    seed: int = 0
    """Decides the shuffled captions and the resamples."""
