"""What each setting of vLLM does to the speed of the stage's prompts on this machine.

Raw vLLM with the stage's settings and one of them changed, an engine for each. The passes of an
engine have prompts of their own, and each engine has the same ones. The first line and the last one
are the stage's settings unchanged: how far they lie apart is what a difference must exceed.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.engine_passes import (
    Pass,
    Request,
    packaged_settings,
    parts_of_names,
    raw_passes,
    read_prompts,
)
from tests.benchmarks.result import Result, spread

NUM_PASSES = 3
PARTS_PER_PASS = 3


def _as_it_is(request: Request) -> None:
    """Nothing is changed."""


def _without(name: str) -> Callable[[Request], None]:
    def change(request: Request) -> None:
        del request["sampling_params"][name]

    return change


def _with(name: str, value: float) -> Callable[[Request], None]:
    def change(request: Request) -> None:
        request["sampling_params"][name] = value

    return change


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One setting that is not the stage's.

    Attributes:
        engine: arguments of vLLM's engine.
        variables: environment variables.
        request: changes a request in place.
    """

    engine: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    request: Callable[[Request], None] = _as_it_is


def _structured(backend: str) -> dict[str, Any]:
    return {"structured_outputs_config": {"backend": backend, "disable_any_whitespace": True}}


_CHUNKED = {"enable_chunked_prefill": True, "max_num_batched_tokens": 512}

CHANGES: dict[str, Change] = {
    "as it is": Change(),
    **{f"max_num_seqs {n}": Change(engine={"max_num_seqs": n}) for n in (16, 32, 64, 128, 256)},
    **{f"block_size {n}": Change(engine={"block_size": n}) for n in (32, 64, 128)},
    "no prefix caching": Change(engine={"enable_prefix_caching": False}),
    "chunked prefill": Change(engine=_CHUNKED),
    "chunked prefill, no seeds": Change(engine=_CHUNKED, request=_without("seed")),
    "no seeds": Change(request=_without("seed")),
    "top_p 0.9": Change(request=_with("top_p", 0.9)),
    "no schema": Change(request=_without("structured_outputs")),
    "schema by guidance": Change(engine=_structured("guidance")),
    "schema by outlines": Change(engine=_structured("outlines")),
    "one thread": Change(variables={"OMP_NUM_THREADS": "1"}),
    "threads that spin for long": Change(variables={"GOMP_SPINCOUNT": "3000000"}),
    "threads that sleep at once": Change(variables={"GOMP_SPINCOUNT": "0"}),
    "threads bound by vLLM": Change(variables={"VLLM_CPU_OMP_THREADS_BIND": "auto"}),
    "threads bound to 0-1": Change(variables={"VLLM_CPU_OMP_THREADS_BIND": "0-1"}),
    "worker in a process of its own": Change(variables={"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}),
    "KV cache 1 GiB": Change(variables={"VLLM_CPU_KVCACHE_SPACE": "1"}),
    "KV cache 8 GiB": Change(variables={"VLLM_CPU_KVCACHE_SPACE": "8"}),
    "bfloat16": Change(engine={"dtype": "bfloat16"}),
    "float16": Change(engine={"dtype": "float16"}),
    "compiled": Change(engine={"enforce_eager": False}),
    "as it is, again": Change(),
}


def measure_settings(names: Sequence[str]) -> Iterator[Result]:
    """Tokens per second with each of the changes that are named, or with all of them."""
    settings = packaged_settings()
    parts = parts_of_names(1 + NUM_PASSES * PARTS_PER_PASS)
    with tempfile.TemporaryDirectory(prefix="anymix-settings-") as folder:
        by_part = read_prompts(settings, parts, Path(folder))
    cuts = range(1, len(parts), PARTS_PER_PASS)
    passes = [list(chain.from_iterable(by_part[cut : cut + PARTS_PER_PASS])) for cut in cuts]
    for name in names or CHANGES:
        change = CHANGES[name]
        found = list(
            raw_passes(
                settings,
                _changed(by_part[0], change),
                [_changed(requests, change) for requests in passes],
                engine=change.engine,
                variables=change.variables,
            )
        )
        yield _result(name, found)


def _changed(requests: Sequence[Request], change: Change) -> list[Request]:
    copies = copy.deepcopy(list(requests))
    for request in copies:
        change.request(request)
    return copies


def _result(name: str, found: Sequence[Pass]) -> Result:
    if len(found) < NUM_PASSES:
        return Result(name=name, value=0, unit="tokens/s", rival="the engine died")
    rates = [each.rate for each in found]
    told = (
        f"{spread(rates, 0)}; engine's start {found[0].start_s:.0f} s; {found[0].num_tokens} tokens"
        f" in the first pass; others used up to {max(each.foreign for each in found):.0f} %"
    )
    return Result(name=name, value=median(rates), unit="tokens/s", rival=told)
