"""Runs the LLM over a chain's rows.

Parts become rows of one request each, the rows go through a backend that answers as many at a time
as it can, and one collector keeps the answers, puts the parts together again and passes them on. No
part waits for another, so that no engine idles at a part's end, nor for the end of ingest.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.engine.stage import Output, Work
from pipeline.errors import UserError
from pipeline.synthesis.backends import answer, explain, rows_per_batch
from pipeline.synthesis.budget import Budget, Gate, most_billed, most_written
from pipeline.synthesis.collector import Collector
from pipeline.synthesis.limit import read_cut
from pipeline.synthesis.prompts import Prompts, load_prompts
from pipeline.synthesis.requests import CARRIED, ERROR_COLUMN, read_requests, takes_part
from pipeline.synthesis.settings import SynthesisSettings
from pipeline.synthesis.weights import model_fingerprint

if TYPE_CHECKING:
    from ray.data import Dataset

_LIGHT = 0.5  # logical CPUs of a stage that only moves rows


class EngineDataflow:
    """The steps that ask an LLM about each record until its texts pass or its attempts are used up.

    The image records with `chance(record_id)` below the pinned cut take part; a part without any is
    committed empty. Ray Data starts the engines with the chain.

    Reads: records.
    Writes: answers.
    Rejects: nothing; `synthesize` judges the answers.
    Source: none.
    """

    scorer: Any = None
    """Scores texts with their pictures; `filters.clip_critic` sets it, as CLIP lives there."""

    def __init__(self, settings: SynthesisSettings, models: Mapping[str, Path]) -> None:
        self._settings = settings
        self._cut = read_cut(models["synthesis"])
        self._budget: Any = None

    def needs(self, work: Work) -> bool:
        """Whether the part has a record that takes part."""
        records = work.read("records", ["record_id", "image_id"]).to_pylist()
        return any(takes_part(record, self._cut) for record in records)

    def explain(self, error: BaseException) -> UserError | None:
        """What the death of an engine means."""
        return explain(self._settings, error)

    def __call__(self, dataset: Dataset, num_rows: int) -> Dataset:
        """Requests, answers, and parts again.

        Raises:
            UserError: when the model, a prompt file or vLLM's interpreter is missing.
        """
        import ray

        settings = self._settings
        prompts = load_prompts(settings)
        # Actors, since each task of several parts at once would start a process beside the engine.
        requests = dataset.flat_map(
            _Reader,
            fn_constructor_kwargs={"settings": settings, "prompts": prompts, "cut": self._cut},
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=settings.num_replicas),
            num_cpus=_LIGHT,
        )
        # Rows of a block come out together: without this, the answers of a part only at its end.
        num_together = rows_per_batch(settings)
        requests = requests.repartition(target_num_rows_per_block=num_together)
        if settings.budget is not None:
            # It lives as long as this object, so that all rounds share it.
            if self._budget is None:
                self._budget = ray.remote(num_cpus=0)(Budget).remote(settings.budget)
            requests = requests.map_batches(
                Gate,
                fn_constructor_kwargs={
                    "budget": self._budget,
                    "error_column": ERROR_COLUMN,
                    "rows_per_batch": num_together,
                    "most_tokens": most_billed if settings.endpoint else most_written,
                },
                batch_format="pyarrow",
                batch_size=None,
                compute=ray.data.ActorPoolStrategy(size=1),
                num_cpus=_LIGHT,
            )
        return answer(settings, requests, carried=CARRIED).map_batches(
            Collector,
            fn_constructor_kwargs={
                "settings": settings,
                "prompts": prompts,
                "cut": self._cut,
                "num_parts": num_rows,
                "scorer": self.scorer,
                "budget": self._budget,
                "model": f"{settings.model}@{model_fingerprint(settings)}",
            },
            batch_format="pyarrow",
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=1),
            num_cpus=_LIGHT,
        )


class _Reader:
    """`read_requests` with what it needs, as Ray Data's actors are made."""

    def __init__(self, settings: SynthesisSettings, prompts: Prompts, cut: float) -> None:
        self._read = partial(read_requests, settings=settings, prompts=prompts, cut=cut)

    def __call__(self, row: dict[str, str]) -> list[dict[str, Any]]:
        """The requests of a part."""
        return self._read(row)


class SilentWorker:
    """The stage without an LLM (`synthesis.limit: 0`, or no picture): there are no answers.

    Reads: nothing.
    Writes: `answers`, empty.
    Rejects: nothing.
    Source: none.
    """

    def __init__(self, settings: SynthesisSettings, models: Mapping[str, Path]) -> None:
        """Needs nothing."""

    def __call__(self, work: Work) -> Output:  # noqa: ARG002
        """No rows."""
        return Output(rows=[])
