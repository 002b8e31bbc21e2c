"""The filters: what CLIP scores cost and tell, what duplicates cost and find, how fast a cut is.

python -m tests.benchmarks.filters [--json] [--only NAME…] [--quick]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout

from tests.benchmarks import (
    filters_clip,
    filters_duplicates,
    filters_duplicates_lookup,
    filters_quality,
    filters_recut,
)
from tests.benchmarks.result import Result, show

FULL: dict[str, Callable[[], Iterator[Result]]] = {
    "clip": lambda: filters_clip.measure(2_000, 2_000, 250),
    "duplicates": lambda: filters_duplicates.measure(2_000, 200),
    "duplicates-lookup": lambda: filters_duplicates_lookup.measure((10_000, 100_000, 1_000_000)),
    "recut": lambda: filters_recut.measure(1_000_000, 10_000),
    "quality": lambda: filters_quality.measure(filters_quality.FULL),
}
QUICK: dict[str, Callable[[], Iterator[Result]]] = {
    "clip": lambda: filters_clip.measure(256, 16, 64),
    "duplicates": lambda: filters_duplicates.measure(300, 30),
    "duplicates-lookup": lambda: filters_duplicates_lookup.measure((1_000, 10_000)),
    "recut": lambda: filters_recut.measure(10_000, 1_000),
    "quality": lambda: filters_quality.measure(filters_quality.QUICK),
}


def main() -> None:
    """Run the chosen benchmarks; exit code 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    parser.add_argument("--only", nargs="+", choices=list(FULL), help="these alone")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    chosen = parser.parse_args()
    benchmarks = QUICK if chosen.quick else FULL
    with redirect_stdout(sys.stderr):  # Ray's warnings come on stdout
        found = [each for name in chosen.only or benchmarks for each in benchmarks[name]()]
    sys.exit(not show(found, as_json=chosen.json))


if __name__ == "__main__":
    main()
