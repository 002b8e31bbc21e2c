"""Runs the LLM over a chain's rows through `ray.data.llm`.

Parts become rows of one request each, the rows go through vLLM's engines with as many in flight as
they can hold, and one collector puts the parts together again, commits them and passes them on. No
part waits for another, so that no engine idles at a part's end, nor for the end of ingest.

What makes vLLM 0.32 fast on a CPU: SmolLM2-135M in float32, two cores without AVX-512, 128 OpenMoji
names through the packaged prompt (434 tokens in, 35 out), output tokens per second of the engine:

    both cores, not pinned (`VLLM_CPU_OMP_THREADS_BIND=nobind`), 64 sequences      163
    the same, 128 sequences; answers then come later and in larger lumps           178
    vLLM's own choice, which leaves one core out, 64 sequences                     116

A JSON schema and a seed for each request cost nothing that can be measured; `top_p` below 1 costs
about 30 %, since the vocabulary is then sorted for every token (95 against 147, other prompt).
A schema with bounded repetition takes xgrammar 2.5 s to compile for each style, an open one 0.05 s.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.engine.stage import Output, Work
from pipeline.errors import UserError
from pipeline.synthesis.collector import Collector
from pipeline.synthesis.limit import read_cut
from pipeline.synthesis.prompts import load_prompts
from pipeline.synthesis.requests import CARRIED, ERROR_COLUMN, read_requests, select_records
from pipeline.synthesis.settings import SynthesisSettings
from pipeline.synthesis.weights import model_fingerprint, resolve_model

if TYPE_CHECKING:
    from ray.data import Dataset
    from ray.data.llm import vLLMEngineProcessorConfig

ROWS_PER_BATCH = 16
"""Rows that go through the processor together. They come out together too, so this is the grain of
the progress; enough batches run at a time to fill the engine."""

_LIGHT = 0.5  # logical CPUs of a stage that only moves rows

_ANSWERED = ("generated_text", "num_input_tokens", "num_generated_tokens")

Row = dict[str, Any]


class EngineDataflow:
    """The steps that ask an LLM about each record until its texts pass or its attempts are used up.

    The image records with `chance(record_id)` below the pinned cut take part; a part without any is
    committed empty. Ray Data starts the engines with the chain.

    Reads: records.
    Writes: answers.
    Rejects: nothing; `synthesize` judges the answers.
    Source: none.
    """

    def __init__(self, settings: SynthesisSettings, models: Mapping[str, Path]) -> None:
        self._settings = settings
        self._cut = read_cut(models["synthesis"])

    def needs(self, work: Work) -> bool:
        """Whether the part has a record that takes part."""
        return bool(select_records(work, self._cut))

    def __call__(self, dataset: Dataset) -> Dataset:
        """Requests, answers, and parts again.

        Raises:
            UserError: when the model, a prompt file or vLLM's interpreter is missing.
        """
        import ray
        from ray.data.llm import build_processor

        settings = self._settings
        if settings.python is not None and not settings.python.is_file():
            raise UserError(
                f"synthesis.python: there is no {settings.python}.",
                "It is the interpreter of the environment that holds vLLM; null means this one.",
            )
        prompts = load_prompts(settings)
        read = partial(read_requests, settings=settings, prompts=prompts, cut=self._cut)
        ask = build_processor(
            _processor_config(settings),
            postprocess=_keep,
            preprocess_map_kwargs={"num_cpus": _LIGHT},
            postprocess_map_kwargs={"num_cpus": _LIGHT},
        )
        return ask(dataset.flat_map(read, num_cpus=_LIGHT)).map_batches(
            Collector,
            fn_constructor_kwargs={
                "settings": settings,
                "prompts": prompts,
                "cut": self._cut,
                "model": f"{settings.model}@{model_fingerprint(settings.model)}",
            },
            batch_format="pyarrow",
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=1),
            num_cpus=_LIGHT,
        )


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


def _keep(row: Row) -> Row:
    """What the collector needs of an answered row; rows with an error come past this unchanged."""
    return {name: row[name] for name in (*CARRIED, *_ANSWERED)} | {ERROR_COLUMN: ""}


def _processor_config(settings: SynthesisSettings) -> vLLMEngineProcessorConfig:
    from ray.data.llm import vLLMEngineProcessorConfig

    in_flight = max(2, -(-2 * settings.max_num_seqs // ROWS_PER_BATCH))
    gpus = {"bundle_per_worker": {"CPU": 1, "GPU": 1}}
    return vLLMEngineProcessorConfig(
        model_source=resolve_model(settings.model),
        runtime_env=runtime_env(settings),
        # Without a placement, Ray waits for a GPU that a CPU machine never has.
        placement_group_config=gpus if settings.device == "gpu" else {"bundles": [{"CPU": 1}]},
        concurrency=(settings.num_replicas, settings.num_replicas),
        batch_size=ROWS_PER_BATCH,
        max_concurrent_batches=in_flight,
        should_continue_on_error=True,
        log_engine_metrics=False,
        chat_template_stage={"concurrency": 1},
        # vLLM does both itself: two processes less to start.
        tokenize_stage=False,
        detokenize_stage=False,
        engine_kwargs=engine_kwargs(settings),
    )


def engine_kwargs(settings: SynthesisSettings) -> dict[str, Any]:
    """The arguments of vLLM's engine."""
    common = {
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "dtype": settings.dtype,
        "enable_prefix_caching": True,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "pipeline_parallel_size": settings.pipeline_parallel_size,
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        "disable_log_stats": True,
    }
    if settings.device == "cpu":
        common |= {
            "dtype": "float32" if settings.dtype == "auto" else settings.dtype,
            # Compiling takes minutes on a CPU and gains nothing.
            "enforce_eager": True,
            # A prompt read in two steps kills vLLM 0.32's engine when its request has a seed:
            # "CPU Generator does not use offset".
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(settings.max_model_len, 2048),
        }
    return common | settings.engine


def runtime_env(settings: SynthesisSettings) -> dict[str, Any]:
    """The interpreter and the environment variables that an engine starts with."""
    variables = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}
    if Path(resolve_model(settings.model)).is_dir():
        variables["HF_HUB_OFFLINE"] = "1"
    if settings.device == "cpu":
        variables |= {
            "VLLM_CPU_KVCACHE_SPACE": str(settings.cpu_kv_cache_gib),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(settings.cpu_threads or os.cpu_count()),
        }
    # Absolute, since a worker starts elsewhere; the link itself, since it is what makes the venv.
    interpreter = {"py_executable": str(settings.python.absolute())} if settings.python else {}
    return {**interpreter, "env_vars": variables}
