"""The rivals of `loader`: stock webdataset, litdata and mosaicml-streaming at the same job.

    python -m tests.benchmarks.loader_rivals NAME make|read FOLDER NUM_ROWS

A script for the interpreter of the rival's own environment. `make` writes the samples in its
format, from `samples.npz` with all texts as ids; `read` prints one JSON object with what it took.
Webdataset reads the tars as they are, and makes ids of the captions that it chooses.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.loader_job import SHARES, Raw, run

_COLUMNS = {
    "codes": "uint16", "ids": "uint32", "lengths": "int32", "upto": "float32", "counts": "int32",
}  # fmt: skip


def endless(start: Callable[[], Any]) -> Iterator[Any]:
    """The samples of epoch after epoch."""
    while True:
        yield from start()


def source(folder: Path, stream: str) -> Iterator[dict[str, np.ndarray]]:
    """The samples that `loader` has written down for the rivals."""
    with np.load(folder / f"{stream}.npz") as arrays:
        held = {name: (arrays[name], arrays[f"{name}_ends"]) for name in _COLUMNS}
    for n in range(len(held["codes"][1]) - 1):
        yield {name: values[ends[n] : ends[n + 1]].copy() for name, (values, ends) in held.items()}


class Litdata:
    """litdata's chunks of 64 MB."""

    def make(self, folder: Path, stream: str) -> None:
        from litdata import optimize

        optimize(
            fn=_same, inputs=list(source(folder, stream)), num_workers=1, chunk_bytes="64MB",
            output_dir=str(folder / "litdata" / stream),
        )  # fmt: skip

    def open(self, folder: Path, stream: str) -> Callable[[], Raw]:
        from litdata import StreamingDataset

        dataset = StreamingDataset(str(folder / "litdata" / stream), shuffle=True, seed=0)
        samples = endless(lambda: iter(dataset))
        return lambda: Raw(**next(samples))


class Mosaic:
    """mosaicml-streaming's shards of 64 MB."""

    def make(self, folder: Path, stream: str) -> None:
        from streaming import MDSWriter

        columns = dict.fromkeys(_COLUMNS, "bytes")  # it refuses arrays that may be empty
        target = folder / "streaming" / stream
        with MDSWriter(out=str(target), columns=columns) as writer:
            for sample in source(folder, stream):
                writer.write({name: values.tobytes() for name, values in sample.items()})

    def open(self, folder: Path, stream: str) -> Callable[[], Raw]:
        from streaming import StreamingDataset

        local = str(folder / "streaming" / stream)
        dataset = StreamingDataset(local=local, shuffle=True, batch_size=1)
        samples = endless(lambda: iter(dataset))

        def next_sample() -> Raw:
            sample = next(samples)
            return Raw(
                **{name: np.frombuffer(sample[name], kind) for name, kind in _COLUMNS.items()}
            )

        return next_sample


class Webdataset:
    """Stock webdataset over our tars, with a shuffle buffer."""

    def make(self, folder: Path, stream: str) -> None:
        """The tars are there."""

    def open(self, folder: Path, stream: str) -> Callable[[], Raw]:
        import webdataset
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tars = sorted(map(str, (folder / "shards").glob(f"{stream}-*.tar")))
        dataset = webdataset.WebDataset(tars, shardshuffle=len(tars)).shuffle(1000).decode()
        samples = endless(lambda: iter(dataset))
        rng = np.random.default_rng(0)

        def next_sample() -> Raw:
            sample = next(samples)
            about = sample["json"]
            texts = [{"captions": about["captions"]}] if "captions" in about else []
            texts += [each for each in about.get("segments", []) if each["type"] == "text"]
            chosen = [_choose(each["captions"], rng) for each in texts] or [sample["txt"]]
            ids = [tokenizer.encode(text).ids for text in chosen]
            return Raw(
                codes=sample.get("codes.npy", np.zeros(0, np.uint16)).ravel(),
                ids=np.concatenate([np.array(each, np.uint32) for each in ids]),
                lengths=np.array([len(each) for each in ids]),
                upto=np.ones(len(ids)),
                counts=np.ones(len(ids), np.int64),
            )

        return next_sample


RIVALS = {"litdata": Litdata, "streaming": Mosaic, "webdataset": Webdataset}


def _choose(captions: list[dict[str, Any]], rng: np.random.Generator) -> str:
    ends = np.cumsum([each["weight"] for each in captions])
    return str(captions[int(np.searchsorted(ends, rng.random() * ends[-1]))]["text"])


def _same(sample: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return sample


def main() -> None:
    """Do what the command line says."""
    name, what, folder, num_rows = sys.argv[1:]
    rival = RIVALS[name]()
    if what == "make":
        for stream in SHARES:
            rival.make(Path(folder), stream)
        return
    import_module(name)  # ours has imported what it needs before it is timed, too
    done = run(lambda: {each: rival.open(Path(folder), each) for each in SHARES}, int(num_rows))
    print(json.dumps(done))  # noqa: T201


if __name__ == "__main__":
    main()
