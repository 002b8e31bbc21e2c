"""`tests/FAULTS.md`: what each fault looks like to a person, and what is lost.

The tests of the faults write its rows: each tells what it has just seen, and fails where the table
says otherwise. `ANYMIX_WRITE_FAULTS=1 python -m pytest tests -p no:xdist -k …` writes it anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

PATH = Path(__file__).parents[1] / "FAULTS.md"
_HEAD = """\
# Faults

What anymix does when something goes wrong, as the tests saw it. Each row is written by the test
that brings the fault about, and the tests fail where this page says otherwise.

| fault | what the user sees | what is lost |
|---|---|---|
"""


def read_rows() -> dict[str, str]:
    """For each fault, its line."""
    if not PATH.exists():
        return {}
    lines = PATH.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if re.match(r"\| (?!fault \|)", line)]
    return {line.split(" | ")[0].removeprefix("| "): line for line in rows}


def tell(fault: str, sees: str, lost: str = "nothing") -> None:
    """Say what a fault looks like; an error where the table says something else."""
    line = f"| {fault} | {' '.join(sees.split())} | {lost} |"
    rows = read_rows()
    if os.environ.get("ANYMIX_WRITE_FAULTS"):
        rows[fault] = line
        PATH.write_text(_HEAD + "".join(f"{rows[name]}\n" for name in sorted(rows)), "utf-8")
        return
    assert rows.get(fault) == line, f"{PATH.name} says otherwise; see {__name__}"
