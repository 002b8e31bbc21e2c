"""The tokenize stage beside a bare loop, and beside a script that does it as the peers do.

    python -m tests.benchmarks.tokenize [--json] [--quick]

The stage reads committed records and commits their tokens. The bare loop decodes, preprocesses and
encodes the same bytes, which it has in memory, in batches of the same size, and keeps nothing. The
script saves each image's codes as int64 in a file of its own, as LlamaGen's `extract_codes_c2i.py`
does, but with a forward for a whole batch. All three have one process on one core, and take turns;
rates are by the seconds of the processor, so that what else runs on the machine counts little.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jobs.recipe import Recipe
from jobs.stages import steps
from pipeline.engine.corpus import Task
from pipeline.engine.fingerprint import hash_bytes
from pipeline.engine.schemas import RECORDS
from pipeline.engine.stage import StageSpec, Work
from pipeline.engine.tables import write_table
from pipeline.engine.token_schemas import TOKENS
from pipeline.engine.worker import CommittingWorker, RunContext
from pipeline.images import decode
from tests.benchmarks.result import Result, show, spread
from tokenizer_cache.packed_codes import bits_per_code, pack
from tokenizer_cache.settings import VQSettings
from tokenizer_cache.vq.model import VQModel
from tokenizer_cache.vq.tokenizer import load_vq, save_vq

_BATCH_SIZE = 64
"""That of the stage for pictures of this size."""
_SIZE = (320, 240)
_NUM_PUBLISHED, _GRID, _CODEBOOK_SIZE = 1000, (24, 24), 16_384
"""Codes as LlamaGen and Janus have them, for their size on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What one pass over all images took, in seconds."""

    cpu_s: float
    wall_s: float


def measure(num_images: int, repeats: int) -> Iterator[Result]:
    """Images per second of each way, and their bytes on disk."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="anymix-tokenize-") as made:
        folder = Path(made)
        pictures = [_picture(number) for number in range(num_images)]
        ways = _ways(folder, pictures)
        passes: dict[str, list[Pass]] = {name: [] for name in ways}
        for repeat in range(repeats + 1):
            for name, way in ways.items():
                target = folder / f"{name}-{repeat}"
                wall, cpu = time.perf_counter(), time.process_time()
                way(target)
                took = Pass(cpu_s=time.process_time() - cpu, wall_s=time.perf_counter() - wall)
                passes[name] += [took] if repeat else []  # the first one warms up
        rates = {name: [num_images / each.cpu_s for each in own] for name, own in passes.items()}
        for name, goal in (("bare", ">= 0.95"), ("peers", "")):
            ratios = [a / b for a, b in zip(rates["ours"], rates[name], strict=True)]
            walls = [b.wall_s / a.wall_s for a, b in zip(passes["ours"], passes[name], strict=True)]
            yield Result(
                name=f"images a second of the stage, beside {_NAMES[name]}",
                value=round(statistics.median(ratios), 3),
                unit="times",
                goal=goal,
                rival=f"{spread(rates['ours'])}, {spread(rates[name])}; "
                f"ratios {spread(ratios, 3)}, by the clock {spread(walls, 3)}",
            )
        ours = _bytes(folder / f"ours-{repeats}" / "tables") / num_images
        yield _size("64 codes of 512", ours, _bytes(folder / f"peers-{repeats}") / num_images, 72)
        yield _published_size(folder)


_NAMES = {"bare": "a bare loop", "peers": "the peers' script"}


def _ways(folder: Path, pictures: list[bytes]) -> dict[str, Callable[[Path], None]]:
    """Ours, the bare loop and the peers' script; each is given a folder to write to."""
    model, records = folder / "vq", folder / "records.parquet"
    model.mkdir()
    torch.manual_seed(0)
    save_vq(model, VQSettings(), VQModel(VQSettings()))
    write_table(records, [_record(content) for content in pictures], RECORDS)
    (spec,) = [
        step
        for step in steps(Recipe.model_validate({"name": "b", "sources": [{"kind": "shapes"}]}))
        if isinstance(step, StageSpec) and step.name == "tokenize"
    ]
    worker = CommittingWorker(spec, {"vq": model}, RunContext(run="b", attempts=folder / "tries"))
    tokenizer = load_vq(model)

    def ours(target: Path) -> None:
        extra = {"tokenizer": "0123456789abcdef", "corpus": str(target)}
        work = Work(part="part", inputs={"records": records}, extra=extra)
        done = worker.do(
            Task(
                work=work,
                output=target / "tables" / "part.parquet",
                rejects=target / "rejects.parquet",
            )
        )
        assert done.num_rows == len(pictures), done.error

    def encoded() -> Iterator[np.ndarray]:
        for start in range(0, len(pictures), _BATCH_SIZE):
            images = [decode(content) for content in pictures[start : start + _BATCH_SIZE]]
            yield tokenizer.encode_images(images)  # (B, h, w)

    def bare(_: Path) -> None:
        for _codes in encoded():
            pass

    def peers(target: Path) -> None:
        target.mkdir()
        number = 0
        for batch in encoded():
            for codes in batch:
                np.save(target / f"{number}.npy", codes.reshape(1, -1).astype(np.int64))
                number += 1

    return {"ours": ours, "bare": bare, "peers": peers}


def _picture(number: int) -> bytes:
    """A JPEG of a size on the web, whose detail falls with its scale as a photograph's does."""
    random = np.random.default_rng(number)
    width, height = _SIZE
    total = np.zeros((height, width, 3), np.float32)
    for side in (4, 16, 64):
        coarse = Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8))
        total += np.asarray(coarse.resize(_SIZE, Image.Resampling.BICUBIC), np.float32) * 2 / side
    scaled = (total - total.min()) * 255 / (total.max() - total.min())
    stream = io.BytesIO()
    Image.fromarray(scaled.astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _record(content: bytes) -> dict[str, object]:
    image_id = hash_bytes(content)
    empty: dict[str, object] = {"more_captions": [], "repairs": [], "opt_outs": []}
    texts = {"source": "b", "caption": "a picture", "licence": "CC0-1.0", "attribution": "",
             "split": "train", "origin": ""}  # fmt: skip
    return {
        "record_id": image_id[:16], "key": image_id, "image_id": image_id, "image": content,
        "width": _SIZE[0], "height": _SIZE[1], **texts, **empty,
    }  # fmt: skip


def _published_size(folder: Path) -> Result:
    """Codes of the published tokenizers' shape, used alike, as a part and as files."""
    shape = (_NUM_PUBLISHED, *_GRID)
    codes = np.random.default_rng(0).integers(0, _CODEBOOK_SIZE, shape, np.uint16)
    bits = bits_per_code(_CODEBOOK_SIZE)
    same = {"tokenizer": "0123456789abcdef", "view": 0, "box": [0, 0, 384, 384], "bits": bits}
    same |= {"rows": _GRID[0], "columns": _GRID[1]}
    rows = [{"image_id": hash_bytes(own), **same, "codes": own} for own in pack(codes, bits)]
    path = folder / "published" / "part.parquet"
    write_table(path, rows, TOKENS)
    single = folder / "published.npy"
    np.save(single, codes[0].reshape(1, -1).astype(np.int64))
    floor = codes[0].size * bits / 8
    return _size(
        f"{codes[0].size} codes of {_CODEBOOK_SIZE:,}",
        path.stat().st_size / _NUM_PUBLISHED,
        single.stat().st_size,
        floor,
        goal="<= 1.1",
    )


def _size(what: str, ours: float, theirs: float, floor: float, goal: str = "") -> Result:
    return Result(
        name=f"bytes of an image with {what}, beside the bare bits",
        value=round(ours / floor, 3),
        unit="times",
        goal=goal,
        rival=f"the table's file {ours:.0f}, the bits {floor:.0f}, an int64 .npy {theirs:.0f}",
    )


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Run the benchmark; exit code 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    parser.add_argument("--quick", action="store_true", help="fewer images and repeats")
    chosen = parser.parse_args()
    num_images, repeats = (256, 3) if chosen.quick else (1024, 5)
    sys.exit(not show(measure(num_images, repeats), as_json=chosen.json))


if __name__ == "__main__":
    main()
