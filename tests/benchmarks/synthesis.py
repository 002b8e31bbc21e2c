"""The LLM's stage beside raw `vllm.LLM.chat`: the same prompts, settings and machine, in turns.

    python -m tests.benchmarks.synthesis [--json] [--quick] [--threads N]
    python -m tests.benchmarks.synthesis --settings [NAME…]

Counted are the tokens that the LLM writes, none that it reads. `--settings` runs raw vLLM alone,
one setting changed at a time; the table in `pipeline/synthesis/backends/vllm.py` is made of that.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from itertools import chain
from pathlib import Path
from statistics import median

from tests.benchmarks.engine_passes import (
    Pass,
    our_pass,
    packaged_settings,
    parts_of_names,
    raw_passes,
    read_prompts,
)
from tests.benchmarks.engine_settings import CHANGES, measure_settings
from tests.benchmarks.result import Result, show, spread


def measure(num_parts: int, repeats: int, threads: int | None) -> Iterator[Result]:
    """Tokens per second of both in turns, and their ratio."""
    settings = packaged_settings().model_copy(update={"cpu_threads": threads})
    parts = parts_of_names(1 + num_parts)
    ours: list[Pass] = []
    raw: list[Pass] = []
    with tempfile.TemporaryDirectory(prefix="anymix-synthesis-") as folder:
        warm_up, *others = read_prompts(settings, parts, Path(folder) / "prompts")
        requests = list(chain.from_iterable(others))
        for repeat in range(repeats):
            place = Path(folder) / f"ours-{repeat}"
            ours.append(our_pass(settings, parts, place, num_warm_up=len(warm_up)))
            raw += raw_passes(settings, warm_up, [requests], engine={}, variables={})
    rates = [[each.rate for each in passes] for passes in (ours, raw)]
    yield Result(
        name=f"the stage, {len(requests)} requests",
        value=round(median(rates[0]) / median(rates[1]), 3),
        unit="ratio",
        goal=">= 0.95",
        rival=f"tokens/s: ours {spread(rates[0])}; vllm.LLM.chat {spread(rates[1])}",
    )
    yield Result(
        name="tokens written by ours, against raw vLLM",
        value=round(_num_tokens(ours) / _num_tokens(raw), 3),
        unit="ratio",
        rival=f"{_same(ours[0], raw[0])} of {len(requests)} answers are the same to the letter",
    )
    yield Result(
        name="cores used by other processes",
        value=round(max(each.foreign for each in (*ours, *raw)), 1),
        unit="% at most",
        rival="above a few, the figures above are worth nothing",
    )


def _num_tokens(passes: Sequence[Pass]) -> int:
    return sum(each.num_tokens for each in passes)


def _same(one: Pass, other: Pass) -> int:
    return (Counter(one.texts) & Counter(other.texts)).total()


def main() -> None:
    """Measure; exit code 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    parser.add_argument("--quick", action="store_true", help="a quarter of the requests, once")
    parser.add_argument("--threads", type=int, help="of the engine; every core by default")
    parser.add_argument("--settings", nargs="*", choices=list(CHANGES), help="each of vLLM's alone")
    chosen = parser.parse_args()
    with redirect_stdout(sys.stderr):  # Ray's warnings come on stdout
        if chosen.settings is not None:
            found = list(measure_settings(chosen.settings))
        else:
            num_parts, repeats = (1, 1) if chosen.quick else (10, 3)
            found = list(measure(num_parts, repeats, chosen.threads))
    sys.exit(not show(found, as_json=chosen.json))


if __name__ == "__main__":
    main()
