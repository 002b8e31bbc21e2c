"""The engine itself: what a run without work costs, what a change costs, memory, overhead, kills.

    python -m tests.benchmarks.engine [--json] [--only NAME…] [--quick]

The full sizes take about an hour on two cores, the quick ones some minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path

from tests.benchmarks import driver_memory, incremental, overhead
from tests.benchmarks.result import Result, show
from tests.faults.torture import Outcome, campaign, write_recipe


def torture(num_kills: int) -> Iterator[Result]:
    """Kills at random instants: what differs afterwards, and what was done twice."""
    with tempfile.TemporaryDirectory(prefix="anymix-torture-") as folder:
        recipe = write_recipe(Path(folder))
        seeds = (1, 2, 3, 4, 5)
        outcomes = list(campaign(recipe, Path(folder), num_kills=num_kills, seeds=seeds))
    yield from summary(outcomes)


def summary(outcomes: Sequence[Outcome]) -> Iterator[Result]:
    """What a campaign of kills has shown; one that finds a difference ends with an error."""
    kills = [kill for outcome in outcomes for kill in outcome.kills]
    victims = {victim: sum(k.victim == victim for k in kills) for victim in sorted({
        kill.victim for kill in kills
    })}  # fmt: skip
    told = ", ".join(f"{count} {victim}" for victim, count in victims.items())
    yield Result(name="torture: SIGKILLs at random instants", value=len(kills), unit="kills",
                 rival=f"{told}; {len(outcomes)} corpora")  # fmt: skip
    yield Result(
        name="torture: files that differ from the undisturbed run's", value=0, unit="files",
        goal="== 0", rival=f"{sum(o.files_compared for o in outcomes):,} files compared",
    )  # fmt: skip
    shares = [kill.records_twice / o.work for o in outcomes for kill in o.kills]
    yield Result(
        name="torture: work done twice, worst kill", value=round(100 * max(shares), 2),
        unit="% of all", goal="<= 2", rival=f"mean {100 * sum(shares) / len(shares):.2f} %",
    )  # fmt: skip


FULL: dict[str, Callable[[], Iterator[Result]]] = {
    "incremental": lambda: incremental.measure((10_000, 100_000, 1_000_000)),
    "memory": lambda: driver_memory.measure((100_000, 1_000_000, 10_000_000)),
    "overhead": lambda: overhead.measure(num_parts=500, repeats=5),
    "torture": lambda: torture(50),
}
QUICK: dict[str, Callable[[], Iterator[Result]]] = {
    "incremental": lambda: incremental.measure((10_000,)),
    "memory": lambda: driver_memory.measure((100_000, 1_000_000)),
    "overhead": lambda: overhead.measure(num_parts=100, repeats=3),
    "torture": lambda: torture(5),
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
