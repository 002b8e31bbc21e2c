"""Who answers the requests of the synthesis: one interface, a module for each kind of server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.data import Dataset

    from pipeline.errors import UserError
    from pipeline.synthesis.settings import SynthesisSettings

_ROWS_PER_BATCH = 16


def rows_per_batch(settings: SynthesisSettings) -> int:
    """Rows that go through the backend together.

    They come out together too, so this is the grain of the progress and of what a kill costs; a
    task of Ray Data costs some milliseconds.
    """
    if settings.endpoint is None:
        return _ROWS_PER_BATCH
    return max(1, min(_ROWS_PER_BATCH, settings.endpoint.concurrency // 4))


def answer(settings: SynthesisSettings, dataset: Dataset, *, carried: Sequence[str]) -> Dataset:
    """Rows of requests, answered, in any order; no row is lost.

    Args:
        settings: who answers, and how.
        dataset: rows with `messages`, `sampling_params` (as vLLM names them, the JSON schema as a
            text), `request` (a hash of both), `__inference_error__` and the carried columns. A row
            whose `__inference_error__` is set already passes unchanged.
        carried: the columns that come out as they went in.

    Returns:
        Rows with the carried columns, `generated_text`, `num_input_tokens`, `num_generated_tokens`,
        `finish_reason` (`length` when the answer had used up its tokens) and `__inference_error__`:
        empty, or why there is no answer (`errors.py`); the other four are then null or missing, as
        is each that nobody knows. A server's have `num_billed_tokens` and `notices` (`reply.py`).

    Raises:
        UserError: when what the backend needs is missing.
    """
    # Imported here: the settings stand beside their backends, and each has a library of its own.
    match settings.backend:
        case "vllm":
            from pipeline.synthesis.backends import vllm

            return vllm.answer(settings, dataset, carried=carried)
        case "openai":
            from pipeline.synthesis.backends import openai

            return openai.answer(settings, dataset, carried=carried)
        case "replay":
            from pipeline.synthesis.backends import replay

            return replay.answer(settings, dataset, carried=carried)


def explain(settings: SynthesisSettings, error: BaseException) -> UserError | None:
    """What a person can do about an error that ended a backend's steps; None where it is unknown.

    A backend that stops for a reason which it knows raises a `UserError` itself.
    """
    if settings.backend != "vllm":
        return None
    from pipeline.synthesis.backends import vllm

    return vllm.explain(settings, error)
