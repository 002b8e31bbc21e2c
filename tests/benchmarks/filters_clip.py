"""What `clip_score` costs: the stages `measure` and `score` beside a bare loop over open_clip.

The bare loop decodes, prepares, calls `encode_image` and `encode_text` and multiplies, in batches
of the same size, with one thread for the model; it has its bytes in memory and writes nothing. Ours
is the stages' own code from the records table to the rows of the scores, with its decoding in a
thread of its own. The two take turns, part by part. The weights are random: they cost what trained
ones do.

What else the two stages do (sharpness, hashes, languages, …) is no CLIP score: it is left out of
ours, timed by itself over the same parts, and told beside.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import open_clip
import torch
from open_clip.transform import image_transform
from PIL import Image
from safetensors.torch import save_file

from filters import clip_adopt, shared_captions
from filters import measure as measure_stage
from filters import score as score_stage
from filters.clip import BATCH_SIZE, create_model, weights_name
from filters.measure import MeasureWorker
from filters.score import ScoreWorker
from filters.settings import ClipSettings, MeasureSettings, OpenClipSettings, ScoreSettings
from pipeline.engine.fingerprint import hash_bytes
from pipeline.engine.schemas import PICTURES, RECORDS, VARIANTS, original_texts
from pipeline.engine.stage import FitInputs, Work
from pipeline.engine.tables import write_table
from pipeline.images import decode
from pipeline.settings import Settings
from tests.benchmarks.filters_duplicates import photos
from tests.benchmarks.result import Result, spread
from tests.filters.clip_models import saved

_WORDS = ("red", "blue", "small", "large", "old", "wooden", "round", "open", "empty", "dark")
_THINGS = ("dog", "house", "car", "tree", "boat", "chair", "lamp", "bridge", "child", "horse")
_PLACES = ("on", "in", "under", "beside", "behind", "near", "above", "before")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """A model as ours has it and as open_clip has it, with the same weights."""

    name: str
    settings: ClipSettings | OpenClipSettings
    folder: Path
    bare: open_clip.CLIP
    prepare: Callable[[Image.Image], torch.Tensor]
    tokenizer: open_clip.SimpleTokenizer


@dataclass(slots=True)
class _Seconds:
    """Of each part, on the processor and on the clock."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def take(self, do: Callable[[], Any]) -> Any:
        cpu, wall = time.process_time(), time.perf_counter()
        found = do()
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)
        return found


def measure(num_pictures: int, num_for_large: int, part_size: int) -> Iterator[Result]:
    """A ViT-B/32 and the small model, one and three captions a picture."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="anymix-clip-") as folder:
        root = Path(folder)
        pictures = [_jpeg(image) for image in photos(num_pictures)]
        for model, count in ((_small(root), num_pictures), (_large(root), num_for_large)):
            for num_captions, goal in ((1, ">= 0.95"), (3, ">= 1.5")):
                place = root / f"{model.folder.name}-{num_captions}"
                place.mkdir()
                parts = _write_parts(place, pictures[:count], num_captions, part_size)
                yield from _compare(model, place, parts, num_captions, goal)


def _compare(
    model: _Model, root: Path, parts: Sequence[Sequence[dict[str, Any]]], captions: int, goal: str
) -> Iterator[Result]:
    """Ours and the bare loop in turns, part by part."""
    models = {"clip": model.folder, "captions": root / "captions"}
    workers = (
        MeasureWorker(MeasureSettings(clip=model.settings), models),
        ScoreWorker(ScoreSettings(clip=model.settings), models),
    )
    ours, bare, others = _Seconds(), _Seconds(), _Seconds()
    worst = 0.0
    _ours(root, 0, workers)  # loads the models
    for number, records in enumerate(parts):
        by_open_clip = partial(bare.take, partial(_bare, model, records))
        expected = by_open_clip() if number % 2 else {}
        scores = ours.take(partial(_ours, root, number, workers))
        expected = expected or by_open_clip()
        worst = max(worst, *(abs(scores[key] - expected[key]) for key in expected))
        images = [decode(each["image"]) for each in records]
        others.take(partial(_others, images, records))
    num_pairs = captions * sum(map(len, parts))
    ratios = [b / o for o, b in zip(ours.cpu, bare.cpu, strict=True)]
    what = f"{model.name}, {num_pairs // captions:,} pictures, {captions} caption(s) each"
    whole = sum(ours.cpu) + sum(others.cpu)
    yield Result(
        name=f"clip_score: {what}", value=round(sum(bare.cpu) / sum(ours.cpu), 3), unit="times",
        goal=goal, rival=f"pairs per second of the processor: {num_pairs / sum(ours.cpu):.1f}, "
        f"bare loop {num_pairs / sum(bare.cpu):.1f}; by part {spread(ratios, 3)}; "
        f"on the clock {sum(bare.wall) / sum(ours.wall):.3f} times; "
        f"with all else that the stages measure {num_pairs / whole:.1f}",
    )  # fmt: skip
    yield Result(
        name=f"equality: {what}", value=float(f"{worst:.2g}"), unit="", goal="<= 1e-5",
        rival="largest difference from the bare loop's cosine",
    )  # fmt: skip


def _ours(root: Path, number: int, workers: tuple[MeasureWorker, ScoreWorker]) -> dict[Any, float]:
    """The scores of a part by the stages' code, without what is no CLIP score."""
    tables = {name: root / f"{name}-{number}.parquet" for name in ("records", "pictures")}
    work = Work(part="p", inputs={**tables, "variants": root / "variants.parquet"})
    with (
        patch.object(measure_stage, "_measure", lambda _: _MEASURED),
        patch.object(score_stage, "text_scores", lambda *_: _READ),
    ):
        write_table(tables["pictures"], workers[0](work).rows, PICTURES)
        rows = workers[1](work).rows
    return {(row["record_id"], row["variant_id"]): row["clip_score"] for row in rows}


@torch.inference_mode()
def _bare(model: _Model, records: Sequence[dict[str, Any]]) -> dict[Any, float]:
    """The same by open_clip alone; a picture with three captions is decoded and encoded thrice."""
    pairs = [
        (each["record_id"], variant, each["image"], text)
        for each in records
        for variant, text in original_texts(each)
    ]
    found = {}
    for start in range(0, len(pairs), BATCH_SIZE):
        batch = pairs[start : start + BATCH_SIZE]
        pictures = [
            model.prepare(Image.open(io.BytesIO(content)).convert("RGB"))
            for _, _, content, _ in batch
        ]
        images = model.bare.encode_image(torch.stack(pictures), normalize=True)
        tokens = model.tokenizer([text for *_, text in batch])
        texts = model.bare.encode_text(tokens, normalize=True)
        cosines = (images * texts).sum(dim=-1).tolist()
        found |= {pair[:2]: cosine for pair, cosine in zip(batch, cosines, strict=True)}
    return found


def _others(images: Sequence[Image.Image], records: Sequence[dict[str, Any]]) -> None:
    """What else the two stages find out."""
    for image in images:
        measure_stage._measure(image)
    for each in records:
        for _, text in original_texts(each):
            score_stage.text_scores(text, ScoreSettings())


def _small(root: Path) -> _Model:
    """The model that is trained on a corpus, the same weights in each of its folds."""
    settings, folder = ClipSettings(), root / "clip-small"
    folder.mkdir()
    torch.manual_seed(0)
    bare = create_model(settings).eval()
    for fold in range(settings.folds):
        save_file(bare.state_dict(), folder / weights_name(fold))
    half = (0.5, 0.5, 0.5)
    return _Model(
        name="small", settings=settings, folder=folder, bare=bare,
        prepare=image_transform(settings.image_size, is_train=False, mean=half, std=half),
        tokenizer=open_clip.SimpleTokenizer(context_length=settings.context_length),
    )  # fmt: skip


def _large(root: Path) -> _Model:
    """A ViT-B/32, saved and taken from where it was saved."""
    config = open_clip.get_model_config("ViT-B-32")
    theirs, folder = saved(root / "published", config, {}), root / "clip-large"
    folder.mkdir()
    settings = OpenClipSettings(kind="open_clip", model=f"local-dir:{theirs}")
    list(clip_adopt.fit(settings, FitInputs(tables={}, models={}), folder))
    bare, prepare = open_clip.create_model_from_pretrained(settings.model)
    return _Model(
        name="ViT-B/32", settings=settings, folder=folder, bare=bare, prepare=prepare,
        tokenizer=open_clip.get_tokenizer(settings.model),
    )  # fmt: skip


def _write_parts(
    root: Path, pictures: Sequence[bytes], num_captions: int, part_size: int
) -> list[list[dict[str, Any]]]:
    """The records of each part, written as ingest writes them, and no texts of an LLM."""
    chance = np.random.default_rng(0)
    records = []
    for number, content in enumerate(pictures):
        first, *more = (_caption(chance) for _ in range(num_captions))
        further = [{"name": str(place), "text": text} for place, text in enumerate(more)]
        records.append({
            **{field.name: None if field.nullable else "x" for field in RECORDS},
            "record_id": f"r{number:06d}", "image": content, "image_id": hash_bytes(content),
            "width": 256, "height": 256, "caption": first, "more_captions": further,
            "repairs": [], "opt_outs": [],
        })  # fmt: skip
    parts = [records[start : start + part_size] for start in range(0, len(records), part_size)]
    files = [root / f"records-{number}.parquet" for number in range(len(parts))]
    for file, part in zip(files, parts, strict=True):
        write_table(file, part, RECORDS)
    write_table(root / "variants.parquet", [], VARIANTS)
    (root / "captions").mkdir()
    inputs = FitInputs(tables={"records": files}, models={})
    list(shared_captions.fit(Settings(), inputs, root / "captions"))
    return parts


def _caption(chance: np.random.Generator) -> str:
    """Ten words, so that hardly two are equal."""
    one, two = (f"a {' '.join(chance.choice(_WORDS, 2))} {chance.choice(_THINGS)}" for _ in "ab")
    return f"{one} {chance.choice(_PLACES)} {two}"


def _jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.resize((384, 288)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


_MEASURED = measure_stage._measure(Image.new("RGB", (64, 64)))
_READ = score_stage.text_scores("a text", ScoreSettings())
"""What stands in the place of the scores that are no CLIP scores."""
