"""Kills a run with SIGKILL again and again while it tokenizes and writes shards.

    python -m tests.faults.kills [--kills 50] [--seed 0]

A process that has loaded what it needs forks one that fills a corpus to which nothing but tokens
and shards is missing, kills it at a random instant, and forks the next one; when one comes to its
end, every table, model and shard must have the bytes of the run that nobody disturbed. No kill is
spent on a start, so that fifty take a minute; `torture` kills whole clusters, starts included.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console

from jobs.progress import Reporter
from jobs.recipe import Recipe, load_recipe
from jobs.run import fill
from tests.faults.torture import promised_files, without
from tests.jobs.conftest import TINY

TABLES = {"tokenize": "tokens", "shards": "samples"}


def kill_often(recipe: Recipe, filled: Path, folder: Path, *, num_kills: int, seed: int) -> int:
    """Kill runs until there have been so many kills; the last corpus is brought to its end.

    Args:
        recipe: what `filled` was made of, without Ray.
        filled: an undisturbed corpus.
        folder: where those that are killed lie.
        num_kills: how many kills there are in all.
        seed: chooses the instants.

    Returns:
        How many corpora were compared with `filled`.

    Raises:
        AssertionError: when a run ends in another way, or a corpus differs.
    """
    import tokenizer_cache.vq.tokenizer  # noqa: F401 - loaded here, no fork has to

    torch.set_num_threads(1)  # threads do not live on in a fork
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    wanted = promised_files(filled)
    num_corpora, longest_s = 0, 0.0
    while num_kills > 0 or num_corpora == 0:
        root = folder / f"killed-{num_corpora}"
        without(filled, root, TABLES)
        code = None
        while code is None:
            # The first corpus is not killed: it tells how long a run takes.
            is_calm = num_corpora == 0 or num_kills == 0
            began = time.monotonic()
            code = _fork(
                lambda: fill(recipe, root, reporter=Reporter(Console(quiet=True))),  # noqa: B023
                None if is_calm else chance.uniform(0, longest_s / 2),
            )
            num_kills -= code is None
            longest_s = max(longest_s, time.monotonic() - began) if is_calm else longest_s
        assert code == 0, f"a run on {root} ended with {code}"
        assert promised_files(root) == wanted, f"{root} differs from {filled}"
        num_corpora += 1
    return num_corpora


def _fork(run: Callable[[], object], delay_s: float | None) -> int | None:
    """The exit code of a process of its own that runs this; None when it was killed meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            run()
            code = 0
        finally:
            os._exit(code)
    if delay_s is not None:
        signal.sigtimedwait({signal.SIGCHLD}, delay_s)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)  # drops what is left of this one's end
    return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


def main() -> None:
    """Make a corpus, kill its copies, and print how many came out the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="anymix-kills-") as made:
        folder = Path(made)
        path = folder / "kills.yaml"
        path.write_text(TINY)
        recipe = load_recipe(path, ["ingest.rows_per_part=10"])
        fill(recipe, folder / "filled", reporter=Reporter(Console(quiet=True)))
        num = kill_often(
            recipe, folder / "filled", folder, num_kills=chosen.kills, seed=chosen.seed
        )
        files = len(promised_files(folder / "filled"))
    print(f"{chosen.kills} kills; {num} corpora of {files} files compared, none differs")  # noqa: T201


if __name__ == "__main__":
    main()
