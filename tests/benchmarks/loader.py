"""The loader beside stock webdataset, litdata and mosaicml-streaming at the same job.

    python -m tests.benchmarks.loader [--json] [--rows N] [--repeats N]

The job: 2:2:1 tokens of text, image and mixed samples in a random order, a caption by weight, 10 %
of the conditions dropped, whole documents packed into rows of 2,048, with targets and positions.
One process each, without worker processes, one after the other in every repeat. From the page cache
the processor's seconds count, so that what else runs on the machine does not; without it, the
clock's, from the opening on. The rivals' environments are made once, in the cache's folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.machine_cache import cache_folder
from pipeline.engine.tables import write_table
from pipeline.engine.token_schemas import SAMPLES
from tests.benchmarks.loader_job import NUM_CODES
from tests.benchmarks.loader_million import write_million
from tests.benchmarks.loader_samples import GRID, Samples, vocabulary, write_rival_samples
from tests.benchmarks.result import Result, show, spread
from tokenizer_cache.manifest import shard_name
from tokenizer_cache.publishing import publish, staged_folder
from tokenizer_cache.shard_writing import write_shard

_PACKAGES = {
    "litdata": ("litdata==0.2.76", "obstore", "lightning-utilities", "tifffile", "boto3"),
    "streaming": (
        "mosaicml-streaming==0.13.0", "catalogue", "cramjam", "python-snappy", "xxhash", "zstd",
        "Brotli",
    ),
    "webdataset": (),
}  # fmt: skip
"""What a rival needs beside the packages of anymix, which stand behind its own on its path."""

_Run = dict[str, float]
"""What a process has printed."""


def measure(num_rows: int, repeats: int) -> Iterator[Result]:
    """Tokens per second of ours and of each rival, and what a start costs."""
    samples = Samples(seed=0)
    with tempfile.TemporaryDirectory(prefix="anymix-loader-") as made:
        folder = Path(made)
        write(folder, samples, {"text": 3000, "image": 5000, "mixed": 1500}, shards=4)
        yield Result(
            name="bytes a sample with 576 codes and 12 words", unit="bytes", goal="<= 3200",
            value=samples.bytes_per_sample(folder), rival=f"codes of 14 bits: {NUM_CODES * 14 / 8}",
        )  # fmt: skip
        yield from _beside_rivals(folder, num_rows, repeats)
    with tempfile.TemporaryDirectory(prefix="anymix-million-") as made:
        write_million(Path(made), samples)
        yield from _in_a_million(Path(made))


def _beside_rivals(folder: Path, num_rows: int, repeats: int) -> Iterator[Result]:
    commands = {"ours": [sys.executable, "-m", "tests.benchmarks.loader_ours",
                         str(folder / "shards"), "read", str(num_rows)]}  # fmt: skip
    for name in _PACKAGES:
        rival = [_environment(name), "-m", "tests.benchmarks.loader_rivals", name]
        _run([*rival, "make", str(folder), "0"])
        commands[name] = [*rival, "read", str(folder), str(num_rows)]
    warm, cold = [
        [{name: _read(command, folder, cached) for name, command in commands.items()}
         for _ in range(repeats)]
        for cached in (True, False)
    ]  # fmt: skip
    yield Result(
        name="packing efficiency", value=round(warm[0]["ours"]["efficiency"], 4),
        unit="of all tokens", goal=">= 0.99",
    )  # fmt: skip
    for name in _PACKAGES:
        goal = ">= 10" if name == "webdataset" else "> 1"
        for cache, runs in (("warm", warm), ("cold", cold)):
            rates = [[_rate(run[each], cache) for each in ("ours", name)] for run in runs]
            ratios = [ours / theirs for ours, theirs in rates]
            ours, theirs = (statistics.median(each) / 1e6 for each in zip(*rates, strict=True))
            yield Result(
                name=f"packed tokens a second, {cache} cache, beside {name}",
                value=round(statistics.median(ratios), 2),
                unit="times",
                goal=goal,
                rival=f"{ours:.2f} M, {theirs:.2f} M; {spread(ratios, 2)}",
            )
    yield Result(
        name="peak memory", value=warm[0]["ours"]["peak_mb"], unit="MB",
        rival=", ".join(f"{name}: {warm[0][name]['peak_mb']}" for name in _PACKAGES),
    )  # fmt: skip


def _in_a_million(shards: Path) -> Iterator[Result]:
    ours = [sys.executable, "-m", "tests.benchmarks.loader_ours", str(shards)]
    whole = _read([*ours, "go-far", "1000000"], shards, cached=False)
    cold = _read([*ours, "resume", "0"], shards, cached=False)
    warm = _read([*ours, "resume", "0"], shards, cached=True)
    yield Result(
        name="first rows of a million samples, cold cache", value=whole["start_s"], unit="s",
        rival=f"{whole['start_cpu_s']:.2f} s of the processor",
    )  # fmt: skip
    for cache, resumed in (("cold", cold), ("warm", warm)):
        yield Result(
            name=f"next rows after a resume a million samples on, {cache} cache", unit="s",
            value=resumed["start_s"], rival=f"{resumed['start_cpu_s']:.2f} s of the processor",
        )  # fmt: skip
    yield Result(
        name="resumed loaders that give the undisturbed one's rows", unit="of 2", goal="== 2",
        value=[cold["next_rows"], warm["next_rows"]].count(whole["next_rows"]),
    )  # fmt: skip
    yield Result(
        name="peak memory over a million samples", value=whole["peak_mb"], unit="MB",
        rival=f"{whole['mapped_mb']} of it are pages of mapped files",
    )  # fmt: skip
    yield Result(
        name="packed tokens a second over a million samples", unit="M",
        value=whole["tokens"] / whole["cpu_s"] / 1e6,
    )  # fmt: skip


def _rate(run: _Run, cache: str) -> float:
    """Tokens a second of the processor; of the clock with all that came before, if `cold`."""
    return run["tokens"] / (run["cpu_s"] if cache == "warm" else run["wall_s"] + run["window_s"])


def _read(command: list[str], folder: Path, cached: bool) -> _Run:
    """What a command prints, with the files of a folder in the page cache or out of it."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                if cached:
                    while file.read(2**20):
                        pass
                else:
                    os.fsync(file.fileno())
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return _run(command)


def write(folder: Path, samples: Samples, counts: Mapping[str, int], *, shards: int) -> None:
    """Write samples as shards of ours and for the rivals."""
    samples.tokenizer.save(str(folder / "tokenizer.json"))
    staged = staged_folder(folder / "shards", "part", "print")
    rows = []
    for stream, count in counts.items():
        made = {f"{stream}{n:07}": samples.make(stream) for n in range(count)}
        write_rival_samples(folder / f"{stream}.npz", made.values(), samples.text)
        for number, keys in enumerate(np.array_split(list(made), shards)):
            path = staged / shard_name(stream, "train", number)
            files = {key: made[key].files() for key in keys.tolist()}
            shard = write_shard(path, files, samples.text, "bpe")
            rows += [
                {"key": key, "stream": stream, "split": "train", **shard, "record_ids": [],
                 "variant_ids": []}
                for key in files
            ]  # fmt: skip
    table = folder / "samples/print/part.parquet"
    write_table(table, rows, SAMPLES)
    publish(folder / "shards", [table], vocabulary(GRID), state="samples")


def _environment(name: str) -> str:
    """The interpreter of a rival's environment, which is made when it is not there."""
    if not _PACKAGES[name]:
        return sys.executable
    key = fingerprint(packages=_PACKAGES[name])
    folder = cache_folder() / "environments" / f"loader-{name}-{key}"
    if not (folder / ".ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, *_PACKAGES[name]], check=True, stdout=sys.stderr)
        (packages,) = folder.glob("lib/python3.*/site-packages")
        # torch and the like are those of anymix: a second copy would take minutes.
        own = "\n".join(path for path in sys.path if path.endswith("site-packages"))
        (packages / "anymix.pth").write_text(own)
        (folder / ".ready").touch()
    return str(folder / "bin/python")


def _run(command: list[str]) -> _Run:
    """What the last line of a command says, if it is JSON."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(json.loads(lines[-1])) if lines else {}


def main() -> None:
    """Run the benchmark; exit code 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    parser.add_argument("--rows", type=int, default=2048, help="rows that are counted")
    parser.add_argument("--repeats", type=int, default=3, help="of every process")
    chosen = parser.parse_args()
    sys.exit(not show(measure(chosen.rows, chosen.repeats), as_json=chosen.json))


if __name__ == "__main__":
    main()
