"""A set of a million samples, to start in and to go on far inside.

Five shards are written as every shard is, with codes of 8x8, and each is copied under further
names until there are a million samples: 4 GB, of which no two files share a block of the disk.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.engine.tables import write_table
from pipeline.engine.token_schemas import SAMPLES
from tests.benchmarks.loader_samples import Samples, vocabulary
from tokenizer_cache.manifest import index_name, shard_name
from tokenizer_cache.publishing import publish, staged_folder
from tokenizer_cache.shard_writing import write_shard

_SIDE = 8
_PER_SHARD = 10_000
_NUM_SHARDS = {"text": 15, "image": 75, "mixed": 10}
_NUM_WRITTEN = {"text": 1, "image": 3, "mixed": 1}


def write_million(folder: Path, samples: Samples) -> None:
    """Write the set's shards and manifest."""
    table = folder / "samples/print/part.parquet"
    staged = staged_folder(folder, "part", "print")
    entries = []
    for stream, num_shards in _NUM_SHARDS.items():
        written = [
            _write(staged / shard_name(stream, "train", number), stream, samples)
            for number in range(_NUM_WRITTEN[stream])
        ]
        for number in range(num_shards):
            row = written[number % len(written)]
            name = shard_name(stream, "train", number)
            if number >= len(written):
                shutil.copyfile(staged / row["shard"], staged / name)
                shutil.copyfile(staged / index_name(row["shard"]), staged / index_name(name))
            entries.append({**row, "shard": name, "stream": stream, "split": "train", "key": name})
    nothing = {"record_ids": [], "variant_ids": []}
    shards = pa.Table.from_pylist([entry | nothing for entry in entries], schema=SAMPLES)
    write_table(table, pa.concat_tables([shards] * _PER_SHARD), SAMPLES)
    publish(folder, [table], vocabulary((_SIDE, _SIDE)), state="samples")


def _write(path: Path, stream: str, samples: Samples) -> dict[str, Any]:
    """A shard in which each of 1,000 samples stands ten times, under keys of its own."""
    made = [samples.make(stream) for _ in range(1000)]
    files = {
        f"{path.stem}-{number:05}": replace(each, codes=each.codes[:, :_SIDE, :_SIDE]).files()
        for number, each in enumerate(islice(cycle(made), _PER_SHARD))
    }
    return write_shard(path, files, samples.text, "bpe")
