"""Who answers the requests of the synthesis: one interface, a module for each kind of server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.synthesis.backends import vllm
from pipeline.synthesis.settings import SynthesisSettings

if TYPE_CHECKING:
    from ray.data import Dataset

ROWS_PER_BATCH = 16
"""Rows that go through a backend together."""


def answer(settings: SynthesisSettings, dataset: Dataset, *, carried: Sequence[str]) -> Dataset:
    """Rows of requests, answered, in any order; no row is lost.

    Args:
        settings: who answers, and how.
        dataset: rows with `messages`, `sampling_params` (as vLLM names them, the JSON schema as a
            text), `__inference_error__` and the carried columns. A row whose `__inference_error__`
            is set already passes unchanged.
        carried: the columns that come out as they went in.

    Returns:
        Rows with the carried columns, `generated_text`, `num_input_tokens`, `num_generated_tokens`
        and `__inference_error__`: empty, or why there is no answer; the other three are then null
        or missing.

    Raises:
        UserError: when what the backend needs is missing.
    """
    return vllm.answer(settings, dataset, carried=carried)
