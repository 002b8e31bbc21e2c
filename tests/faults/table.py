"""`tests/FAULTS.md`: what each fault looks like to a person, and what is lost.

The tests of the faults write its rows: each tells what it has just seen, and fails where the table
says otherwise. `ANYMIX_WRITE_FAULTS=1 python -m pytest tests -p no:xdist -k …` writes it anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

_BAD_HEAD = """
## Bad records

None stops a run. A reject has this reason code; what every viewer would put right is put right, and
the record's `repairs` say so.

| bad record | what becomes of it |
|---|---|
"""
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
    lines = PATH.read_text(encoding="utf-8").partition(_BAD_HEAD)[0].splitlines()
    rows = [line for line in lines if re.match(r"\| (?!fault \|)", line)]
    return {line.split(" | ")[0].removeprefix("| "): line for line in rows}


def bad_record_lines() -> list[str]:
    """A line for each kind of bad record that the tests make, from their own lists."""
    from tests.faults.bad_pictures import PICTURES
    from tests.faults.bad_records import TARS, TEXTS
    from tests.pipeline.sources.test_bad_records import CASES
    from tests.pipeline.test_sounds import BAD

    ends = {
        bad.name: f"reject `{bad.reason}`"
        if bad.reason
        else f"kept, repaired: {', '.join(f'`{name}`' for name in bad.repairs)}"
        if bad.repairs
        else "kept as it is"
        for bad in (*PICTURES, *TEXTS, *TARS)
    }
    ends |= {name: f"reject `{reason}`" for name, (_, reason) in BAD.items()}
    for make, reasons in CASES:
        codes = ", ".join(f"`{reason}`" for reason in dict.fromkeys(reasons))
        ends[make.__name__.replace("_", " ")] = f"reject {codes}" if codes else "kept as it is"
    return [f"| {name} | {ends[name]} |" for name in sorted(ends, key=str.lower)]


def page(rows: Mapping[str, str]) -> str:
    """The whole page."""
    faults = "".join(f"{rows[name]}\n" for name in sorted(rows))
    return _HEAD + faults + _BAD_HEAD + "".join(f"{line}\n" for line in bad_record_lines())


def tell(fault: str, sees: str, lost: str = "nothing") -> None:
    """Say what a fault looks like; an error where the table says something else."""
    line = f"| {fault} | {' '.join(sees.split())} | {lost} |"
    rows = read_rows()
    if os.environ.get("ANYMIX_WRITE_FAULTS"):
        rows[fault] = line
        PATH.write_text(page(rows), "utf-8")
        return
    assert rows.get(fault) == line, f"{PATH.name} says otherwise; see {__name__}"
