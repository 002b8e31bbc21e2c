"""A runner that gives a chain its first part at once, and the others when a gate opens.

So an engine is up and warm before the clock starts, and has nothing to do until then.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.engine.runner import RayRunner

_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedRunner(RayRunner):
    """See above.

    Attributes:
        gate: a file; while it is missing, only the first part goes.
    """

    gate: Path

    def source(self, rows: list[dict[str, str]]) -> Any:
        wait = partial(_wait, first=rows[0]["part"], gate=self.gate)
        # One task after the other: idle workers of Ray take a percent of a core each.
        # The class's own arguments: a dataclass with slots is made twice, which `super()` misses.
        return RayRunner.source(self, rows).map(wait, num_cpus=0, concurrency=1)


def _wait(row: dict[str, str], *, first: str, gate: Path) -> dict[str, str]:
    while row["part"] != first and not gate.exists():
        time.sleep(_POLL_S)
    return row
