"""Kills runs with SIGKILL at random instants until one of them ends, and proves that nothing shows.

A run over `shapes` (many small parts, several Ray workers) loses its whole process tree, only its
driver, one worker, or its raylet, and is started again. Afterwards every table, model and shard has
the SHA-256 of the undisturbed run's, `audit` finds no fault, and few records were done twice.

    python -m tests.faults.torture --kills 50 --seeds 1 2 3
    python -m tests.faults.torture --redo tokenize shards --kills 50 --records 600
    python -m tests.faults.torture --store s3 --kills 20 --seeds 4

With `--redo` a corpus is filled but for some stages, so that all kills fall on these. With a store
the corpora lie on an S3 server of our own, which outlives every kill.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import psutil

from jobs.recipe import load_recipe
from jobs.run import open_corpus
from jobs.stages import list_parts, steps
from pipeline.engine.fingerprint import hash_bytes, hash_file
from pipeline.engine.stage import StageSpec
from pipeline.engine.storage import is_local, on_store
from pipeline.ledger.audit import audit
from tests.jobs.conftest import TINY
from tests.stores.bucket import serving

ROOT = Path(__file__).parents[2]
VICTIMS = ("group", "driver", "worker", "raylet")
HANGS_AFTER_S = 180.0
"""A run that has neither ended nor been killed for so long, and for twice the time that the
undisturbed run worked, counts as one that hangs."""
_PATIENCE_S = 60.0
"""A run without a worker for so long is let alone."""
_PROMISED = ("tables", "models", "shards")
_WORKERS = ("ray::MapWorker", "ray::fit_and_commit", "ray::do_corpus_step")
SMALL_PARTS = {
    "rows_per_part: 40": "rows_per_part: 10",
    "num_workers: 0": "num_workers: 2",
}
"""What the tiny recipe becomes: two workers of each of up to four stages hold eight parts, which
must be few beside all parts."""


class TortureError(AssertionError):
    """A run did what no kill may make it do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One SIGKILL.

    Attributes:
        victim: whom it hit.
        after_s: how long after the start of its run, in seconds.
        records_twice: records in the hands of those who died, whose work is done again.
    """

    victim: str
    after_s: float
    records_twice: int


@dataclass(kw_only=True)
class Outcome:
    """What the kills did to one corpus.

    Attributes:
        seed: chose the instants and the victims.
        kills: all of them.
        exit_codes: how often each exit code ended a run; negative where a signal did.
        files_compared: files that have the undisturbed run's SHA-256.
        work: records times stages: what the corpus takes when nothing is done twice.
    """

    seed: int
    kills: list[Kill] = field(default_factory=list)
    exit_codes: dict[int, int] = field(default_factory=dict)
    files_compared: int = 0
    work: int = 0

    @property
    def worst_share_twice(self) -> float:
        """The largest share of all work that one kill had done twice."""
        return max((kill.records_twice for kill in self.kills), default=0) / self.work


@dataclass(frozen=True, slots=True, kw_only=True)
class Undisturbed:
    """The run that nobody disturbs, and how long it took.

    Attributes:
        files: SHA-256 of everything that a corpus promises to be the same.
        startup_s: until the first part was committed, in seconds.
        working_s: from there to the end.
    """

    files: Mapping[str, str]
    startup_s: float
    working_s: float


def write_recipe(folder: Path, num_records: int = 2000) -> Path:
    """The recipe that is tortured: the tests' tiny one in small parts."""
    text = TINY
    many = {"shapes, num_records: 120": f"shapes, num_records: {num_records}"}
    for line, other in (many | SMALL_PARTS).items():
        assert line in text, f"the tiny recipe has no {line!r} any more"
        text = text.replace(line, other)
    path = folder / "torture.yaml"
    path.write_text(text)
    return path


def promised_files(corpus: Path) -> dict[str, str]:
    """SHA-256 of each file under `tables/`, `models/` and `shards/`."""
    if not is_local(corpus):
        store, root = on_store(corpus)
        names = [n for each in _PROMISED for n in store.find(f"{root}/{each}")]
        contents = store.cat(names) if names else {}
        return {name.removeprefix(f"{root}/"): hash_bytes(each) for name, each in contents.items()}
    return {
        path.relative_to(corpus).as_posix(): hash_file(path)
        for folder in _PROMISED
        for path in sorted((corpus / folder).rglob("*"))
        if path.is_file()
    }


def log_of(recipe: Path, corpus: Path) -> Path:
    """Where the words of the runs on a corpus go: beside the recipe, on this machine."""
    return recipe.with_name(f"{corpus.name}.log")


def start(recipe: Path, corpus: Path, *more: str) -> subprocess.Popen[str]:
    """Start `anymix run` as a process group of its own."""
    with log_of(recipe, corpus).open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "jobs", "run", recipe, "--corpus", str(corpus), *more],
            cwd=ROOT, stdout=log, stderr=log, start_new_session=True, text=True,
        )  # fmt: skip


def undisturbed(recipe: Path, corpus: Path, first: str = "records") -> Undisturbed:
    """Run to the end without a kill; `first` is the table whose first part ends the start."""
    began = time.monotonic()
    started = 0.0
    run = start(recipe, corpus)
    while (code := _wait(run, 0.2)) is None:
        if not started and any(corpus.glob(f"tables/{first}/*/*.parquet")):
            started = time.monotonic()
    if code != 0:
        raise TortureError(f"undisturbed run: exit code {code}\n{_tail(log_of(recipe, corpus))}")
    return Undisturbed(
        files=promised_files(corpus),
        startup_s=started - began,
        working_s=time.monotonic() - started,
    )


def without(filled: Path, corpus: Path, tables: Mapping[str, str]) -> None:
    """Copy a filled corpus but for what some stages have made: `tables` by stage."""
    shutil.copytree(filled, corpus)
    for stage, table in tables.items():
        for folder in (table, f"rejects-{stage}"):
            shutil.rmtree(corpus / "tables" / folder)
    if "shards" in tables:
        shutil.rmtree(corpus / "shards")


def torture(
    recipe: Path,
    corpus: Path,
    calm: Undisturbed,
    *,
    seed: int,
    num_kills: int,
    tables: Mapping[str, str],
) -> Outcome:
    """Run until a run ends well, with up to `num_kills` kills on the way, and compare.

    Raises:
        TortureError: when a run hangs, ends in another way than a kill explains, or when what it
            leaves differs from the undisturbed run's.
    """
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    victims = cycle(chance.sample(VICTIMS, len(VICTIMS)))
    load = _Work.of(recipe, corpus, tables)
    outcome = Outcome(seed=seed, work=load.all)
    log, patience_s = log_of(recipe, corpus), HANGS_AFTER_S + 2 * calm.working_s
    while True:
        run, began, code = start(recipe, corpus), time.monotonic(), None
        wounded = False
        while code is None and len(outcome.kills) < num_kills:
            # From the middle of the start to a fifth of the work later: several kills a corpus.
            delay = chance.uniform(calm.startup_s / 2, calm.startup_s + calm.working_s / 5)
            code = _wait(run, delay)
            if code is None:
                kill = _kill(run, next(victims), chance, load, began)
                outcome.kills += [kill] if kill else []
                wounded = True
                # A run that has lost a worker may live on; without its driver there is none.
                code = _end(run, log, patience_s) if kill and kill.victim != "worker" else None
        if code is None:
            code = _end(run, log, patience_s)
        outcome.exit_codes[code] = outcome.exit_codes.get(code, 0) + 1
        if code == 0:
            break
        if not wounded or code not in (1, -9):
            raise TortureError(f"seed {seed}: exit code {code}\n{_tail(log)}")
    outcome.files_compared = _compare(corpus, calm, seed)
    return outcome


def _compare(corpus: Path, calm: Undisturbed, seed: int) -> int:
    """Check that a corpus is the undisturbed run's; returns the number of files."""
    files = promised_files(corpus)
    different = {name for name, print_ in calm.files.items() if files.get(name) != print_}
    different |= files.keys() - calm.files.keys()
    if different:
        raise TortureError(f"seed {seed}: {len(different)} files differ: {sorted(different)[:5]}")
    faults = [finding for finding in audit(open_corpus(corpus)[1]) if finding.faults]
    if faults:
        raise TortureError(f"seed {seed}: audit finds {faults}")
    return len(files)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What there is to do, and which of it is in hand."""

    corpus: Path
    records: Mapping[str, int]
    tables: Mapping[str, str]

    @classmethod
    def of(cls, recipe: Path, corpus: Path, tables: Mapping[str, str]) -> _Work:
        parts = list_parts(load_recipe(recipe), {})
        records = {part.name: part.num_records for part in parts}
        return cls(corpus=corpus, records=records, tables=tables)

    @property
    def all(self) -> int:
        return sum(self.records.values()) * len(self.tables)

    def in_hand(self, since: float, processes: Sequence[int] | None) -> int:
        """Records of the parts that some processes (None: all) hold and have not committed.

        Files of tries that began before `since` were left by an earlier kill and counted there.
        """
        total = 0
        for path in self.corpus.glob("attempts/*/*.json"):
            with suppress(FileNotFoundError):  # committed meanwhile
                if path.stat().st_mtime < since:
                    continue
                who = json.loads(path.read_text())["tries"][-1]["who"]
                stage, part = path.parent.name, path.stem
                mine = processes is None or int(who.split()[1]) in processes
                done = any(self.corpus.glob(f"tables/{self.tables[stage]}/*/{part}.parquet"))
                total += self.records[part] * (mine and not done)
        return total


def _kill(
    run: subprocess.Popen[str], victim: str, chance: random.Random, work: _Work, began: float
) -> Kill | None:
    """Send SIGKILL and say what it hit; None when the run ended before."""
    targets = _targets(run, victim, chance)
    # Workers come and go: one that is to be hit is waited for.
    patience = time.monotonic() + _PATIENCE_S
    while not targets and run.poll() is None and time.monotonic() < patience:
        time.sleep(0.02)
        targets = _targets(run, victim, chance)
    if not targets or run.poll() is not None:
        return None
    after_s = time.monotonic() - began
    pids = [each.pid for each in targets]
    for each in targets:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    records = work.in_hand(time.time() - after_s, pids if victim == "worker" else None)
    return Kill(victim=victim, after_s=after_s, records_twice=records)


def _targets(
    run: subprocess.Popen[str], victim: str, chance: random.Random
) -> list[psutil.Process]:
    family = _family(run)
    match victim:
        case "worker":
            workers = [each for each in family if _title(each).startswith(_WORKERS)]
            return [chance.choice(workers)] if workers else []
        case "raylet":
            return [each for each in family if _title(each).endswith("/raylet")]
        case "driver":
            return [each for each in family if each.pid == run.pid]
    return family


def _family(run: subprocess.Popen[str]) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        driver = psutil.Process(run.pid)
        return [driver, *driver.children(recursive=True)]
    return []


def _title(process: psutil.Process) -> str:
    """What a process calls itself: Ray's workers change it, the raylet is a program."""
    with suppress(psutil.Error):
        words = process.cmdline()
        return words[0] if words else ""
    return ""


def _wait(run: subprocess.Popen[str], seconds: float) -> int | None:
    """The exit code of a run; None while it goes on."""
    try:
        return run.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _end(run: subprocess.Popen[str], log: Path, patience_s: float) -> int:
    """Wait for a run's end.

    Raises:
        TortureError: when it hangs.
    """
    code = _wait(run, patience_s)
    if code is None:
        for each in _family(run):
            with suppress(psutil.NoSuchProcess):
                each.kill()
        raise TortureError(f"a run hangs: no end within {patience_s:g} s\n{_tail(log)}")
    return code


def _tail(log: Path) -> str:
    return log.read_text()[-2000:]


def campaign(
    recipe: Path, folder: Path, *, num_kills: int, seeds: Sequence[int], redo: Sequence[str] = ()
) -> Iterator[Outcome]:
    """Corpora that are killed, seed after seed, until there have been `num_kills` kills.

    Each seed has its share of them; what a run that ends early leaves of it, another one has.

    Args:
        recipe: what they are made of; the runs' logs go beside it.
        folder: where they lie, on this machine or on a store.
        num_kills: how many kills there are in all.
        seeds: what chooses the instants and the victims.
        redo: the stages that are killed, in the order of the flow; none is all. Local only.
    """
    flow = [step for step in steps(load_recipe(recipe)) if isinstance(step, StageSpec)]
    tables = {step.name: step.writes for step in flow if not redo or step.name in redo}
    calm = undisturbed(recipe, folder / "calm")
    if redo:
        without(folder / "calm", folder / "again", tables)
        calm = undisturbed(recipe, folder / "again", first=tables[redo[0]])
    share = -(-num_kills // len(seeds))
    for seed in cycle(seeds):
        if num_kills <= 0:
            return
        # Another seed each time round the list.
        own = seed * 1000 + num_kills
        most = min(share, num_kills)
        corpus = folder / f"killed-{own}"
        if redo:
            without(folder / "calm", corpus, tables)
        outcome = torture(recipe, corpus, calm, seed=own, num_kills=most, tables=tables)
        num_kills -= len(outcome.kills)
        yield outcome


def main() -> None:
    """Torture, and print what became of each corpus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--redo", nargs="+", default=[], help="kill while these stages work")
    parser.add_argument("--store", choices=["s3"], help="put the corpora on a store")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        own = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="anymix-torture-")))
        folder = own
        if chosen.store:
            folder = stack.enter_context(serving()).path("torture")
            os.environ["ANYMIX_CACHE"] = str(own / "cache")
        recipe = write_recipe(own, chosen.records)
        for outcome in campaign(
            recipe, folder, num_kills=chosen.kills, seeds=chosen.seeds, redo=chosen.redo
        ):
            victims = ", ".join(f"{kill.victim} {kill.after_s:.1f} s" for kill in outcome.kills)
            print(  # noqa: T201
                f"seed {outcome.seed}: {len(outcome.kills)} kills ({victims}), exit codes "
                f"{outcome.exit_codes}, {outcome.files_compared} files compared, at most "
                f"{outcome.worst_share_twice:.2%} of the work done twice by a kill",
                flush=True,
            )


if __name__ == "__main__":
    main()
