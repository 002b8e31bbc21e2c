"""What a benchmark found, on which machine, as JSON or as a table."""

from __future__ import annotations

import json
import operator
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

_COMPARISONS = {
    "<": operator.lt, "<=": operator.le, ">=": operator.ge, ">": operator.gt, "==": operator.eq,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One figure.

    Attributes:
        name: what was measured.
        value: ours, or the ratio of ours to the rival's.
        rival: what was run beside it, with its figures; empty where there is nothing to compare.
        unit: of `value`.
        goal: a comparison and a number, such as `>= 0.8`; empty where it is only told.
    """

    name: str
    value: float
    rival: str = ""
    unit: str
    goal: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if not self.goal:
            return None
        comparison, number = self.goal.split()
        return bool(_COMPARISONS[comparison](self.value, float(number)))


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    libraries = ("ray", "pyarrow", "duckdb", "torch")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": f"{os.cpu_count()} cores, {_cpu_model()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "libraries": ", ".join(f"{name} {version(name)}" for name in libraries),
    }


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median and range, for people."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def show(results: Iterable[Result], *, as_json: bool) -> bool:
    """Print the results; returns whether every goal is reached."""
    found = list(results)
    where = machine()
    if as_json:
        rows = [asdict(result) | {"holds": result.holds} for result in found]
        print(json.dumps({"machine": where, "results": rows}, indent=2))  # noqa: T201
    else:
        table = Table(caption="; ".join(where.values()))
        for column in ("what", "value", "unit", "goal", "holds", "beside it"):
            table.add_column(column)
        for each in found:
            holds = {True: "yes", False: "NO", None: ""}[each.holds]
            table.add_row(each.name, f"{each.value:.4g}", each.unit, each.goal, holds, each.rival)
        Console(width=160, highlight=False).print(table)
    return all(result.holds is not False for result in found)


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
