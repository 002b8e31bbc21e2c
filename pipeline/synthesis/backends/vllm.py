"""Answers requests with vLLM's engines on this cluster, through `ray.data.llm`.

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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.synthesis.requests import ERROR_COLUMN
from pipeline.synthesis.settings import SynthesisSettings
from pipeline.synthesis.weights import resolve_model

if TYPE_CHECKING:
    from ray.data import Dataset
    from ray.data.llm import vLLMEngineProcessorConfig

ROWS_PER_BATCH = 16
"""Rows that go through the processor together. They come out together too, so this is the grain of
the progress; enough batches run at a time to fill the engine."""

_LIGHT = 0.5  # logical CPUs of a stage that only moves rows

_ANSWERED = ("generated_text", "num_input_tokens", "num_generated_tokens")


def answer(settings: SynthesisSettings, dataset: Dataset, *, carried: Sequence[str]) -> Dataset:
    """See `backends.answer`. Ray Data starts the engines with the dataset.

    Raises:
        UserError: when the model or vLLM's interpreter is missing.
    """
    from ray.data.llm import build_processor

    if settings.python is not None and not settings.python.is_file():
        raise UserError(
            f"synthesis.python: there is no {settings.python}.",
            "It is the interpreter of the environment that holds vLLM; null means this one.",
        )
    kept = (*carried, *_ANSWERED)
    ask = build_processor(
        _processor_config(settings),
        # Rows with an error come past this unchanged.
        postprocess=lambda row: {name: row[name] for name in kept} | {ERROR_COLUMN: ""},
        preprocess_map_kwargs={"num_cpus": _LIGHT},
        postprocess_map_kwargs={"num_cpus": _LIGHT},
    )
    return ask(dataset)


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
            # Threads that spin while they wait take the cores from whatever else runs: beside
            # another engine, 5 tokens a second instead of 40.
            "OMP_WAIT_POLICY": "PASSIVE",
            "KMP_BLOCKTIME": "0",
        }
    # Absolute, since a worker starts elsewhere; the link itself, since it is what makes the venv.
    interpreter = {"py_executable": str(settings.python.absolute())} if settings.python else {}
    return {**interpreter, "env_vars": variables}
