"""The image tokenizer on held-out drawings, beside vector-quantize-pytorch's plain defaults.

    python -m tests.benchmarks.vq [--json] [--quick]

OpenMoji at 64 px. Ours is the demo's training with as many steps as fit into 5 minutes of 2 cores.
The rival has the same encoder, decoder, losses, optimizer and shape of the schedule, and between
them `VectorQuantize(dim, codebook_size=512)` as that library's page shows it. Seconds are those
that a process spends on all cores, so that what else runs on the machine does not count; what ours
spends on measuring itself on the way is part of its budget.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from pipeline.engine.storage import read_json
from tests.benchmarks.result import Result, show

_BUDGET_S, _QUICK_S = 600.0, 40.0
_TRAIN = """
import json, sys
from pathlib import Path
from tests.benchmarks import vq_training
found = getattr(vq_training, sys.argv[1])(Path(sys.argv[2]), *map(float, sys.argv[4:]))
Path(sys.argv[3]).write_text(json.dumps(found))
"""


def measure(budget_s: float) -> Iterator[Result]:
    """Quality of ours and of the rival after the same seconds, and after the demo's own steps."""
    with tempfile.TemporaryDirectory(prefix="anymix-vq-") as folder:
        corpus = _ingest(Path(folder))
        ours = _train("ours", corpus, budget_s)
        rival = _train("rival", corpus, ours["spent_s"])
        yield from _compare(ours, rival)
        if budget_s == _BUDGET_S:
            yield from _tell(_train("demo", corpus))


def _ingest(folder: Path) -> Path:
    """A corpus with the records of OpenMoji, split as the demo splits them."""
    recipe, corpus = folder / "recipe.yaml", folder / "corpus"
    recipe.write_text(yaml.safe_dump({"name": "openmoji", "sources": [{"kind": "openmoji"}]}))
    command = [sys.executable, "-m", "jobs.cli", "run", str(recipe), "--corpus", str(corpus)]
    subprocess.run([*command, "--until", "ingest"], check=True, capture_output=True)
    return corpus


def _train(kind: str, corpus: Path, *budget_s: float) -> dict[str, Any]:
    """What one of the trainings found."""
    # A thread that waits by spinning counts as work, on busy cores ten times as much as there is.
    # A checkpoint of another run would save steps.
    environment = {"OMP_WAIT_POLICY": "passive", "ANYMIX_CACHE": str(corpus / "cache")}
    result = corpus / f"{kind}.json"
    subprocess.run(
        [sys.executable, "-c", _TRAIN, kind, str(corpus), str(result), *map(str, budget_s)],
        env=os.environ | environment, check=True, stdout=sys.stderr,
    )  # fmt: skip
    found: dict[str, Any] = read_json(result)
    shown = {name: value for name, value in found.items() if name != "curve"}
    print(kind, shown, file=sys.stderr)  # noqa: T201
    return found


def _compare(ours: dict[str, Any], rival: dict[str, Any]) -> Iterator[Result]:
    beside = f"{rival['steps']:,} steps in {rival['spent_s']:.0f} s"
    yield Result(
        name=f"PSNR of {ours['num_images']} held-out drawings, more than the rival's",
        value=round(ours["psnr"] - rival["psnr"], 2), unit="dB", goal="> 0",
        rival=f"ours {ours['psnr']:.2f}, {rival['psnr']:.2f} after {beside}",
    )  # fmt: skip
    yield Result(
        name="codebook used by them", value=round(100 * ours["codebook_usage"], 1), unit="%",
        goal=">= 95", rival=f"{100 * rival['codebook_usage']:.1f}",
    )  # fmt: skip
    for name, unit in (("ssim", ""), ("perplexity", "codes")):
        yield Result(name=name, value=round(ours[name], 3), unit=unit, rival=f"{rival[name]:.3f}")
    yield Result(
        name="steps", value=ours["steps"], unit="steps", rival=f"in {ours['spent_s']:.0f} s"
    )


def _tell(demo: dict[str, Any]) -> Iterator[Result]:
    rest = f"SSIM {demo['ssim']:.3f}, perplexity {demo['perplexity']:.0f}"
    rest += f", {100 * demo['codebook_usage']:.1f} % used"
    yield Result(
        name=f"PSNR after the demo's {demo['steps']:,} steps", value=round(demo["psnr"], 2),
        unit="dB", rival=f"{rest}, in {demo['spent_s']:.0f} s",
    )  # fmt: skip


def main() -> None:
    """Measure and print; exit code 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    parser.add_argument("--quick", action="store_true", help="40 seconds each")
    chosen = parser.parse_args()
    with redirect_stdout(sys.stderr):
        found = list(measure(_QUICK_S if chosen.quick else _BUDGET_S))
    sys.exit(not show(found, as_json=chosen.json))


if __name__ == "__main__":
    main()
