"""How fast a step of the training is, and what packing and the chunked loss give.

    python -m tests.benchmarks.train [--json] [--quick] [--only speed memory threads]

Ours and a plain decoder of the same shape (`train_rival.py` says what differs) take steps on the
same packed batches, in turns. The step of ours is that of `Trainer.advance` without the loader,
which has a benchmark of its own.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.device import WAITING_THREADS
from tests.benchmarks.result import Result, show, spread
from tests.benchmarks.train_rival import PlainTraining
from trainer.data.packing import Row, build_row, pack
from trainer.model.decoder import Decoder
from trainer.model.masks import document_mask
from trainer.settings import ModelSettings, TrainSettings
from trainer.train.loss import training_loss
from trainer.train.metrics import flops_per_token, measure_peak_flops
from trainer.train.optimizer import Optimizers

VOCAB_SIZE, GRID, SEQ_LEN, ROWS = 4_704, (8, 8), 256, 8
"""As the demo's: 4,096 ids of texts, 512 codes and the special tokens; 2,048 tokens a step."""
_SPIN = dict.fromkeys(WAITING_THREADS, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    model: ModelSettings
    turns: int
    seconds: float
    wide_vocab: int


FULL = Size(model=ModelSettings(), turns=12, seconds=5.0, wide_vocab=119_000)
QUICK = Size(
    model=ModelSettings(layers=1, width=32, heads=2), turns=3, seconds=0.2, wide_vocab=30_000
)


class Ours:
    """Steps of our decoder, its loss, its optimisers and the average of its weights."""

    def __init__(self, model: ModelSettings) -> None:
        torch.manual_seed(0)
        self._settings = TrainSettings(model=model)
        self.model = Decoder(model, vocab_size=VOCAB_SIZE, cells=np.indices(GRID).reshape(2, -1).T)
        self._average = copy.deepcopy(self.model)
        self._optimizers = Optimizers(self.model, self._settings)

    def step(self, tokens: Tensor, targets: Tensor, documents: Tensor, positions: Tensor) -> None:
        """Train on (B, T) int64 tensors."""
        weights = (targets >= 0).float().flatten()
        hidden = self.model.hidden(
            tokens, positions=positions, places=torch.zeros_like(tokens),
            mask=document_mask(documents),
        ).flatten(0, 1)  # fmt: skip
        loss, _ = training_loss(
            hidden, self.model.head.weight, targets.flatten(), weights,
            total_weight=float(weights.sum()), z_loss=self._settings.z_loss,
        )  # fmt: skip
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._settings.clip_norm)
        self._optimizers.step(1.0)
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self._average.parameters()), list(self.model.parameters()), 0.01
            )


def documents(rng: np.random.Generator, num: int) -> list[np.ndarray]:
    """Random documents as long as the demo's: a picture's codes with 8 to 52 tokens around them."""
    lengths = GRID[0] * GRID[1] + rng.integers(8, 52, size=num)
    return [rng.integers(32, VOCAB_SIZE, size=length) for length in lengths]


def packed_batches() -> tuple[list[tuple[Tensor, ...]], float]:
    """Packed batches of the same documents for both, and the share of their tokens that counts."""
    found = documents(np.random.default_rng(0), 400)
    rows = pack(np.array([len(each) for each in found]), seq_len=SEQ_LEN)
    built = [build_row([found[n] for n in row], seq_len=SEQ_LEN, pad=0) for row in rows]
    whole = len(built) // ROWS * ROWS
    share = float(np.mean([(row.documents > 0).mean() for row in built[:whole]]))
    return [_stack(built[at : at + ROWS]) for at in range(0, whole, ROWS)], share


def _stack(rows: Sequence[Row]) -> tuple[Tensor, ...]:
    names = ("tokens", "targets", "documents", "positions")
    return tuple(torch.from_numpy(np.stack([getattr(row, n) for row in rows])) for n in names)


def measure(step: Callable[..., None], batches: Sequence[tuple[Tensor, ...]], s: float) -> float:
    """Positions a second, padding included, over at least `s` seconds of steps."""
    began, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < s or not done:
        step(*batches[done % len(batches)])
        done += 1
    return done * ROWS * SEQ_LEN / passed


def speed(size: Size) -> Iterator[Result]:
    """Ours next to the plain one, and what share of the machine's peak ours reaches."""
    batches, share = packed_batches()
    ours, plain = Ours(size.model), PlainTraining(
        size.model, vocab_size=VOCAB_SIZE, seq_len=SEQ_LEN
    )  # fmt: skip
    for each in (ours, plain):
        each.step(*batches[0])
    own, other = [], []
    peak = measure_peak_flops(torch.device("cpu"), size.model.width)
    for _ in range(size.turns):
        own.append(measure(ours.step, batches, size.seconds))
        other.append(measure(plain.step, batches, size.seconds))
    ratios = np.array(own) / np.array(other)
    draws = np.random.default_rng(0).integers(len(ratios), size=(10_000, len(ratios)))
    low, high = np.quantile(ratios[draws].mean(axis=1), (0.025, 0.975))
    shown = (
        f"95 % interval {low:.2f} to {high:.2f}; {spread(own, 0)} and {spread(other, 0)} tokens/s"
    )
    yield Result(
        name="tokens per second, next to a plain decoder of the same shape",
        value=float(ratios.mean()), unit="times", goal=">= 1.0", rival=shown,
    )  # fmt: skip
    reached = float(np.median(own)) * flops_per_token(ours.model) / peak
    yield Result(
        name="share of the GEMM peak", value=reached, unit="MFU", goal=">= 0.6",
        rival=f"peak {peak / 1e9:.0f} GFLOP/s at width {size.model.width}",
    )  # fmt: skip
    found = documents(np.random.default_rng(0), 400)
    padded = float(np.mean([len(each) for each in found])) / SEQ_LEN
    yield Result(
        name="tokens of documents in a step, packed", value=share / padded, unit="times",
        rival=f"{share:.1%} of the positions when packed, {padded:.1%} with a document a row",
    )  # fmt: skip


def memory(size: Size) -> Iterator[Result]:
    """The peak of a process that makes the loss of 2,048 tokens whole, and in chunks."""
    peaks = {how: _child("loss", how, str(size.wide_vocab)) for how in ("whole", "chunks")}
    yield Result(
        name=f"memory of the loss over {size.wide_vocab:,} ids, in chunks",
        value=peaks["chunks"] / peaks["whole"], unit="of the whole one's", goal="< 1.0",
        rival=", ".join(f"{how} {peak / 2**20:,.0f} MiB" for how, peak in peaks.items()),
    )  # fmt: skip


def threads(size: Size) -> Iterator[Result]:
    """Tokens a second with threads that spin and with ours, alone and next to a busy process."""
    for where in ("alone", "next to a busy process"):
        busy = None
        if where != "alone":
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            found = {
                how: _child("steps", str(size.seconds), str(size is QUICK), environment=variables)
                for how, variables in (("spin", _SPIN), ("sleep", WAITING_THREADS))
            }
        finally:
            if busy is not None:
                busy.kill()
                busy.wait()
        rates = ", ".join(f"{how} {rate:,.0f} tokens/s" for how, rate in found.items())
        yield Result(
            name=f"threads that sleep soon, {where}", value=found["sleep"] / found["spin"],
            unit="times", rival=rates,
        )  # fmt: skip


def _child(*task: str, environment: dict[str, str] | None = None) -> float:
    """The number that a process of its own finds; an empty variable is taken out."""
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.train", "--task", *task],
        env={name: value for name, value in variables.items() if value},
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    return float(json.loads(done.stdout))


def _task(name: str, *arguments: str) -> float:
    if name == "steps":
        seconds, is_quick = arguments
        batches, _ = packed_batches()
        ours = Ours((QUICK if is_quick == "True" else FULL).model)
        ours.step(*batches[0])
        return measure(ours.step, batches, float(seconds))
    how, vocab_size = arguments
    hidden = torch.ones(ROWS * SEQ_LEN, 64, requires_grad=True)
    head = torch.ones(int(vocab_size), 64, requires_grad=True)
    targets = torch.zeros(len(hidden), dtype=torch.int64)
    chunk = len(hidden) * len(head) // (1 if how == "whole" else 16)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loss, _ = training_loss(
        hidden, head, targets, torch.ones(len(hidden)),
        total_weight=len(hidden), z_loss=1e-5, max_logits=chunk,
    )  # fmt: skip
    loss.backward()
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def main() -> int:
    """Measure, and print; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--only", nargs="+", choices=("speed", "memory", "threads"))
    parser.add_argument("--task", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(_task(*options.task)))  # noqa: T201
        return 0
    size = QUICK if options.quick else FULL
    parts = {"speed": speed, "memory": memory, "threads": threads}
    found = [result for name in options.only or parts for result in parts[name](size)]
    return 0 if show(found, as_json=options.json) else 1


if __name__ == "__main__":
    sys.exit(main())
