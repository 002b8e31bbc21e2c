"""Answers requests with vLLM's engines on this cluster, through `ray.data.llm`.

What makes vLLM 0.32 fast on a CPU: SmolLM2-135M in float32 on two cores without AVX-512, output
tokens per second of raw vLLM with this module's settings and one of them changed (medians of two
passes of 160 requests, `python -m tests.benchmarks.synthesis --settings`, 24 November 2026):

    as it is: 64 sequences, prefix caching, whole prompts, xgrammar, two threads  236 (229 to 243)
    128 sequences; answers then come later and in larger lumps                    247 (244 to 250)
    32 sequences                                                                  225 (222 to 229)
    no prefix caching: the examples are read for every request                     59 (57 to 61)
    chunked prefill, without the seeds that kill it                               219 (203 to 234)
    JSON schemas by guidance                                                      236 (230 to 241)
    one thread                                                                    144 (143 to 145)

Threads that sleep as soon as they wait: 204 instead of 239 (vLLM's AsyncLLM, one pass). `top_p`
below 1 costs about 30 %, since the vocabulary is then sorted for every token (95 against 147, an
earlier prompt). What a schema costs to compile stands in `forms.py`.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.device import WAITING_THREADS
from pipeline.errors import FAILED, UserError
from pipeline.synthesis.backends import rows_per_batch
from pipeline.synthesis.requests import ERROR_COLUMN
from pipeline.synthesis.settings import SynthesisSettings
from pipeline.synthesis.vision import MOST_PICTURES, PICTURES, with_parts
from pipeline.synthesis.weights import pinned_chat_template, resolve_model, split_revision

if TYPE_CHECKING:
    from ray.data import Dataset
    from ray.data.llm import vLLMEngineProcessorConfig

logger = logging.getLogger(__name__)

_LIGHT = 0.5  # logical CPUs of a stage that only moves rows

_ANSWERED = ("generated_text", "num_input_tokens", "num_generated_tokens")

_ENGINE_STAGE = "vLLMEngineStage"

_MAX_RESTARTS = 2
"""Ray starts a dead engine again without a limit: one that dies of the same request each time, or
for want of memory, would do so for ever."""

_AN_ENGINE = re.compile(r"LimitedEngine|vLLMEngine")
_NO_VLLM = re.compile(r"vLLM is not installed|No module named 'vllm'")
_NO_START = re.compile(
    r"[^\n]*(Engine core initialization failed|No available memory for the cache blocks"
    r"|larger than the available KV cache|emory on (node|device)|out of memory)[^\n]*"
)
"""vLLM says in its own log, and only sometimes in the error, that its memory does not suffice."""

_LOG = "The engine's own words are in the log of its worker, in the logs of Ray's session."

_IMAGE_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
"""Files of a model's folder; one that takes pictures has one of them."""


def answer(settings: SynthesisSettings, dataset: Dataset, *, carried: Sequence[str]) -> Dataset:
    """See `backends.answer`. Ray Data starts the engines with the dataset.

    Raises:
        UserError: when the model or vLLM's interpreter is missing, or when the model takes no
            pictures and shall see them.
    """
    from ray.data.llm import build_processor

    if settings.python is not None and not settings.python.is_file():
        raise UserError(
            f"synthesis.python: there is no {settings.python}.",
            "It is the interpreter of the environment that holds vLLM; null means this one.",
        )
    if settings.vision:
        _check_eyes(settings)
        # Before the processor, whose steps run where vLLM is and anymix may not be.
        dataset = dataset.map(_place_pictures, num_cpus=_LIGHT, concurrency=settings.num_replicas)
    kept = (*carried, *_ANSWERED)
    most = {"max_tokens": settings.max_tokens, "max_model_len": settings.max_model_len}

    def keep(row: dict[str, Any]) -> dict[str, Any]:
        found = {name: row[name] for name in kept}
        return found | {"finish_reason": _finish_reason(found, **most), ERROR_COLUMN: ""}

    config = _processor_config(settings)
    ask = build_processor(
        config,
        postprocess=keep,  # rows with an error come past it unchanged
        # As the chat template's stage has them, so that Ray Data makes one step of both: tasks of
        # their own would start a process for each batch that waits, and take the engine's cores.
        preprocess_map_kwargs={"num_cpus": _LIGHT, "runtime_env": config.runtime_env},
        postprocess_map_kwargs={"num_cpus": _LIGHT},
    )
    engine = ask.get_stage_by_name(_ENGINE_STAGE)
    engine.map_batches_kwargs["max_restarts"] = _MAX_RESTARTS
    # Set as an attribute, it would be validated once more, and the placement be lost.
    seeing = _with_eyes(engine.fn) if settings.vision else engine.fn
    ask.stages[_ENGINE_STAGE] = engine.model_copy(
        update={"fn": with_time_limit(seeing, settings.timeout_s)}
    )
    return ask(dataset)


def with_time_limit(engine: type, timeout_s: float | None) -> type:
    """`ray.data.llm`'s engine, ended when a batch has got no answer for so long.

    An engine that hangs answers no other request either. Its process ends as that of an engine that
    dies, and Ray starts another one.
    """

    class LimitedEngine(engine):
        async def udf(self, batch: list[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
            replies = super().udf(batch)
            while True:
                try:
                    reply = await asyncio.wait_for(anext(replies), timeout_s)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    logger.error("no answer for %g s: the engine hangs", timeout_s)
                    # The engine proper is a child, which would keep its memory.
                    for child in multiprocessing.active_children():
                        child.kill()
                    os._exit(1)
                yield reply

    return LimitedEngine


def explain(settings: SynthesisSettings, error: BaseException) -> UserError | None:
    """What a person can do about the death of an engine; None for any other error."""
    said = str(error)
    if not _AN_ENGINE.search(said):
        return None
    if _NO_VLLM.search(said):
        where = settings.python or "the environment that runs anymix"
        return UserError(
            f"synthesis.python: there is no vLLM in {where}.",
            "Name the interpreter of the environment that holds it, or use another backend.",
        )
    cause = _NO_START.search(said)
    if cause:
        size = "cpu_kv_cache_gib" if settings.device == "cpu" else "engine.gpu_memory_utilization"
        return UserError(
            f"synthesis: vLLM's engine does not start: {cause.group()}",
            f"Where the memory does not suffice, lower synthesis.{size}, max_num_seqs or "
            f"max_model_len. {_LOG}",
            exit_code=FAILED,
        )
    if "died" in said:
        limit = settings.timeout_s
        hung = f", or has not answered for {limit:g} s (synthesis.timeout_s)" if limit else ""
        return UserError(
            f"synthesis: vLLM's engine has died {_MAX_RESTARTS + 1} times{hung}.",
            f"What was answered stays; the same command goes on from there. {_LOG}",
            exit_code=FAILED,
        )
    return None


def _check_eyes(settings: SynthesisSettings) -> None:
    folder = Path(resolve_model(settings.model))
    if folder.is_dir() and not any((folder / name).exists() for name in _IMAGE_PROCESSORS):
        raise UserError(
            f"synthesis.vision: the model {settings.model} takes no pictures: there is none of "
            f"{', '.join(_IMAGE_PROCESSORS)} in its folder.",
            "Name a vision-language model in synthesis.model, or leave synthesis.vision out.",
        )


def _place_pictures(row: dict[str, Any]) -> dict[str, Any]:
    """A request whose chat says where its pictures stand; the model's chat template words it."""
    places = [{"type": "image"}] * len(row[PICTURES])
    return row | {"messages": with_parts(row["messages"], places)}


def _with_eyes(engine: type) -> type:
    """`ray.data.llm`'s engine, which decodes a request's pictures when it takes it.

    Ray 2.60 has a stage of its own for that, which looks for vLLM's parser of chats where vLLM 0.32
    no longer has it; and it would hand decoded pictures on from process to process.
    """

    class SeeingEngine(engine):
        async def udf(self, batch: list[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
            import io

            from PIL import Image

            for row in batch:
                pictures = [Image.open(io.BytesIO(content)) for content in row.pop(PICTURES)]
                if pictures:
                    row["multimodal_data"] = {"image": pictures}
            async for reply in super().udf(batch):
                yield reply

    return SeeingEngine


def _processor_config(settings: SynthesisSettings) -> vLLMEngineProcessorConfig:
    from ray.data.llm import vLLMEngineProcessorConfig

    num_together = rows_per_batch(settings)
    # A batch comes out with its last answer: with twice the sequences, the engine ran dry at times.
    in_flight = max(2, -(-4 * settings.max_num_seqs // num_together))
    gpus = {"bundle_per_worker": {"CPU": 1, "GPU": 1}}
    return vLLMEngineProcessorConfig(
        model_source=resolve_model(settings.model),
        runtime_env=runtime_env(settings),
        # Without a placement, Ray waits for a GPU that a CPU machine never has.
        placement_group_config=gpus if settings.device == "gpu" else {"bundles": [{"CPU": 1}]},
        concurrency=(settings.num_replicas, settings.num_replicas),
        batch_size=num_together,
        max_concurrent_batches=in_flight,
        should_continue_on_error=True,
        log_engine_metrics=False,
        chat_template_stage={
            "concurrency": settings.num_replicas,
            "num_cpus": _LIGHT,
            "chat_template": pinned_chat_template(settings.model),
        },
        # vLLM does both itself: two processes less to start.
        tokenize_stage=False,
        detokenize_stage=False,
        engine_kwargs=engine_kwargs(settings),
    )


def _finish_reason(answer: Mapping[str, Any], *, max_tokens: int, max_model_len: int) -> str:
    """`ray.data.llm` does not hand vLLM's own on."""
    written = answer["num_generated_tokens"]
    is_full = answer["num_input_tokens"] + written >= max_model_len
    return "length" if is_full or written >= max_tokens else "stop"


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
    if revision := split_revision(settings.model)[1]:
        common["revision"] = revision  # vLLM takes the tokenizer's from it
    if settings.device == "cpu":
        common |= {
            "dtype": "float32" if settings.dtype == "auto" else settings.dtype,
            # Compiling takes minutes on a CPU and gains nothing.
            "enforce_eager": True,
            # A prompt read in two steps kills vLLM 0.32's engine when its request has a seed:
            # "CPU Generator does not use offset".
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(settings.max_model_len, 2048),
            # The prefix cache holds whole blocks. With vLLM's own 128 tokens, 61 of a packaged
            # prompt are read again for every request, with 32 it is 24; its CPU kernel takes only
            # multiples of 32.
            "block_size": 32,
        }
    if settings.vision:
        common["limit_mm_per_prompt"] = {"image": MOST_PICTURES}
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
            **WAITING_THREADS,
            # The model runs in the process that schedules it. In one of its own, as vLLM has it
            # otherwise, the two wait for each other in busy loops (44 % of a core, measured), and
            # the engine takes 16 s instead of 4 to start.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        }
    # Absolute, since a worker starts elsewhere; the link itself, since it is what makes the venv.
    interpreter = {"py_executable": str(settings.python.absolute())} if settings.python else {}
    return {**interpreter, "env_vars": variables}
