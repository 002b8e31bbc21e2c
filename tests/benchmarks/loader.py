"""The loader beside stock webdataset, litdata and mosaicml-streaming at the same job.

    python -m tests.benchmarks.loader [--json] [--rows N]

The job: 2:2:1 tokens of text, image and mixed samples in a random order, a caption by weight, 10 %
of the conditions dropped, whole documents packed into rows of 2,048, with targets and positions.
One process each, without worker processes; seconds are those of the processor, so that what else
runs on the machine does not count. The rivals' environments are made once, in the cache's folder.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.schemas import SAMPLES
from pipeline.engine.storage import cache_folder
from pipeline.engine.tables import write_table
from tests.benchmarks.loader_job import NUM_CODES, SEQ_LEN
from tests.benchmarks.loader_samples import GRID, Samples, write_rival_samples
from tests.benchmarks.result import Result, show
from tokenizer_cache.manifest import Manifest, open_manifest, shard_name, write_manifest
from tokenizer_cache.shard_writing import write_shard
from tokenizer_cache.vocabulary import TokenizerDescription, build_vocabulary
from trainer.loader import Loader
from trainer.settings import LoaderSettings, TrainSettings

_PACKAGES = {
    "litdata": ("litdata==0.2.76", "obstore", "lightning-utilities", "tifffile", "boto3"),
    "streaming": (
        "mosaicml-streaming==0.13.0", "catalogue", "cramjam", "python-snappy", "xxhash", "zstd",
        "Brotli",
    ),
    "webdataset": (),
}  # fmt: skip
"""What a rival needs beside the packages of anymix, which stand behind its own on its path."""
_SETTINGS = TrainSettings(
    seq_len=SEQ_LEN, caption_max_tokens=128, loader=LoaderSettings(num_threads=1)
)
_READ = """
import json, sys, time
from pathlib import Path
from tests.benchmarks.loader import read
print(json.dumps(read(Path(sys.argv[1]), int(sys.argv[2]))))
"""


def measure(num_rows: int) -> Iterator[Result]:
    """Tokens per second of ours and of each rival, and what a start costs."""
    with tempfile.TemporaryDirectory(prefix="anymix-loader-") as made:
        folder = Path(made)
        samples = Samples(seed=0)
        write(folder, samples, {"text": 3000, "image": 5000, "mixed": 1500}, shards=4)
        ours = _run([sys.executable, "-c", _READ, str(folder / "shards"), str(num_rows)])
        yield Result(
            name="packing efficiency", value=round(ours["efficiency"], 4), unit="of all tokens",
            goal=">= 0.99",
        )  # fmt: skip
        yield Result(
            name="bytes a sample with 576 codes and 12 words", unit="bytes", goal="<= 3200",
            value=samples.bytes_per_sample(folder), rival=f"codes of 14 bits: {NUM_CODES * 14 / 8}",
        )  # fmt: skip
        yield Result(name="first rows after the start", value=ours["start_s"], unit="s")
        yield Result(name="peak memory", value=ours["memory_mb"], unit="MB")
        speed = ours["tokens"] / ours["cpu_s"]
        for name in _PACKAGES:
            rival = _rival(name, folder, num_rows)
            theirs = rival["tokens"] / rival["cpu_s"]
            yield Result(
                name=f"packed tokens a second of one core, beside {name}",
                value=round(speed / theirs, 2),
                unit="times",
                goal=">= 10" if name == "webdataset" else "> 1",
                rival=f"{speed / 1e6:.1f} M, {theirs / 1e6:.2f} M",
            )


def read(shards: Path, num_rows: int) -> dict[str, float]:
    """Read so many rows, as the rivals do, after a first window that is not counted."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    loader = Loader(_SETTINGS, open_manifest(shards))
    loader.next_rows(8)
    start_s = time.perf_counter() - began
    loader.next_rows(248)
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = 0
    for _ in range(num_rows // 8):
        tokens += sum(int((row.documents > 0).sum()) for row in loader.next_rows(8))
    return {
        "tokens": tokens,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "efficiency": tokens / (num_rows // 8 * 8 * SEQ_LEN),
        "start_s": round(start_s, 3),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def write(folder: Path, samples: Samples, counts: Mapping[str, int], *, shards: int) -> Manifest:
    """Write samples as shards of ours and for the rivals."""
    samples.tokenizer.save(str(folder / "tokenizer.json"))
    rows = []
    for stream, count in counts.items():
        made = {f"{stream}{n:07}": samples.make(stream) for n in range(count)}
        write_rival_samples(folder / f"{stream}.npz", made.values(), samples.text)
        for number, keys in enumerate(np.array_split(list(made), shards)):
            path = folder / "shards" / shard_name(stream, "train", number)
            files = {key: made[key].files() for key in keys.tolist()}
            shard = write_shard(path, files, samples.text, "bpe")
            rows += [
                {"key": key, "stream": stream, "split": "train", **shard, "record_ids": [],
                 "variant_ids": []}
                for key in files
            ]  # fmt: skip
    write_table(folder / "samples.parquet", rows, SAMPLES)
    vocabulary = build_vocabulary(
        TokenizerDescription(modality="text", num_tokens=4096, fingerprint="bpe"),
        TokenizerDescription(modality="image", num_tokens=16_384, fingerprint="vq", grid=GRID),
    )
    return write_manifest(folder / "shards", [folder / "samples.parquet"], vocabulary, selection="")


def _rival(name: str, folder: Path, num_rows: int) -> dict[str, float]:
    python = _environment(name)
    command = [python, "-m", "tests.benchmarks.loader_rivals", name]
    _run([*command, "make", str(folder), "0"])
    return _run([*command, "read", str(folder), str(num_rows)])


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


def _run(command: list[str]) -> dict[str, float]:
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
    chosen = parser.parse_args()
    sys.exit(not show(measure(chosen.rows), as_json=chosen.json))


if __name__ == "__main__":
    main()
