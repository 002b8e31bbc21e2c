"""A tiny corpus of coloured squares: shards, a vocabulary and tokenizers, without the pipeline."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.engine.schemas import RECORDS, VARIANTS
from pipeline.engine.stage import FitInputs
from pipeline.engine.tables import write_table
from pipeline.engine.token_schemas import SAMPLES
from tests.sharing import made_once
from tokenizer_cache.manifest import Manifest, open_manifest, shard_name
from tokenizer_cache.publishing import publish, staged_folder
from tokenizer_cache.settings import TextSettings, VQSettings
from tokenizer_cache.shard_writing import write_shard
from tokenizer_cache.text import describe_text, load_text
from tokenizer_cache.text import fit as fit_text
from tokenizer_cache.vocabulary import build_vocabulary
from tokenizer_cache.vq.description import describe_vq
from tokenizer_cache.vq.model import VQModel
from tokenizer_cache.vq.tokenizer import save_vq
from trainer.model.decoder import Decoder
from trainer.run import Run, load_run
from trainer.settings import MixSettings, ModelSettings, TrainSettings
from trainer.train.loop import find_start, train

GRID = (4, 4)
COLOURS = {"red": 1, "green": 2, "blue": 3, "yellow": 4}
PLACES = {"left": np.s_[:, :2], "right": np.s_[:, 2:], "top": np.s_[:2], "bottom": np.s_[2:]}
PROSE = "Squares have four sides. All of them are equally long."


@dataclass(frozen=True, slots=True, kw_only=True)
class Squares:
    """A folder of shards and the models behind it."""

    shards: Path
    models: Mapping[str, Path]
    manifest: Manifest


def square(number: int) -> tuple[str, np.ndarray]:
    """A caption and its (4, 4) uint16 codes: half of the ground in one colour, the rest code 0."""
    colour = list(COLOURS)[number % len(COLOURS)]
    place = list(PLACES)[number // len(COLOURS) % len(PLACES)]
    codes = np.zeros(GRID, np.uint16)
    codes[PLACES[place]] = COLOURS[colour]
    return f"a {colour} square at the {place}", codes


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Models as small as these lose more to threads that wait for each other than they gain."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Squares:
    root = made_once(tmp_path_factory, "squares", _make_squares, copies=True)
    models = {"text": root / "text", "vq": root / "vq"}
    shards = root / "shards"
    return Squares(shards=shards, models=models, manifest=open_manifest(shards))


def _make_squares(root: Path) -> None:
    models = {"text": root / "text", "vq": root / "vq"}
    for folder in models.values():
        folder.mkdir()
    records, variants = root / "records.parquet", root / "variants.parquet"
    texts = [PROSE, *(square(number)[0] for number in range(16))]
    write_table(records, [_record(text) for text in texts], RECORDS)
    write_table(variants, [], VARIANTS)
    inputs = FitInputs(tables={"records": [records], "variants": [variants]}, models={})
    list(fit_text(TextSettings(vocab_size=300, min_frequency=1), inputs, models["text"]))
    # Untrained: the codes of the squares are made here, and nobody looks at the pixels.
    vq = VQSettings(image_size=16, stride=4, codebook_size=8, width=8, depth=1)
    torch.manual_seed(0)
    model = VQModel(vq)
    model.encode(torch.rand(16, 3, 16, 16) * 2 - 1)  # the codebook starts with its first images
    save_vq(models["vq"], vq, model)
    vocabulary = build_vocabulary(describe_text(models["text"]), describe_vq(models["vq"]))
    shards, samples = root / "shards", root / "samples/print/part.parquet"
    staged = staged_folder(shards, "part", "print")
    rows = []
    for split, sizes in (("train", (48, 24)), ("validation", (32,))):
        for number, size in enumerate(sizes):
            for stream in ("text", "image", "mixed"):
                rows += _write_shard(staged, stream, split, number, size, models["text"])
    write_table(samples, rows, SAMPLES)
    publish(shards, [samples], vocabulary, state="squares")


@pytest.fixture(scope="session")
def trained(squares: Squares, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A model that has learnt the squares; they are so few that held-out ones are not new."""
    settings = TrainSettings(
        model=ModelSettings(layers=2, width=64, heads=4),
        seq_len=96,
        caption_max_tokens=16,
        tokens_per_step=8 * 96,
        steps=200,
        mix=MixSettings(text=0.2, image=1, mixed=2),
        evaluate_rows=4,
    )

    def make(folder: Path) -> None:
        train_run(squares, folder, settings)

    return load_run(made_once(tmp_path_factory, "run-of-squares", make, copies=True))


def train_run(
    squares: Squares,
    run: Path,
    settings: TrainSettings,
    *,
    fresh: bool = False,
    init: Path | None = None,
) -> None:
    """Train on the squares, or resume."""
    start = find_start(settings, squares.manifest, run, fresh=fresh, init=init)
    train(settings, squares.manifest, start, models=squares.models, run=run)


def _write_shard(
    folder: Path, stream: str, split: str, number: int, size: int, text: Path
) -> list[dict[str, object]]:
    keys = [f"{stream}-{split}-{number}-{index:03}" for index in range(size)]
    samples = {key: _files(stream, key, index) for index, key in enumerate(keys)}
    path = folder / shard_name(stream, split, number)
    shard = write_shard(path, samples, load_text(text), describe_text(text).fingerprint)
    return [
        {"key": key, "stream": stream, "split": split, **shard,
         "record_ids": [key], "variant_ids": [f"{key}/original"]}
        for key in keys
    ]  # fmt: skip


def _files(stream: str, key: str, index: int) -> dict[str, bytes]:
    provenance = {"record_ids": [key], "provenance": []}
    if stream == "text":
        return {"txt": PROSE.encode(), "json": json.dumps(provenance).encode()}
    if stream == "image":
        text, codes = square(index)
        content = {**provenance, "captions": [{"text": text}, {"text": f"{text}, drawn"}]}
        return {"codes.npy": _to_npy(codes), "json": json.dumps(content).encode()}
    segments, pictures = [], []
    for number in (index, index + 5):
        text, codes = square(number)
        segments.append({"type": "image", "index": len(pictures)})
        segments.append({"type": "text", "captions": [{"text": text}]})
        pictures.append(codes)
    content = {**provenance, "segments": segments}
    return {"codes.npy": _to_npy(np.stack(pictures)), "json": json.dumps(content).encode()}


def _to_npy(codes: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, codes, allow_pickle=False)
    return stream.getvalue()


def _record(text: str) -> dict[str, object]:
    return {
        "record_id": text, "source": "squares", "key": text, "image_id": None, "image": None,
        "width": None, "height": None, "caption": text, "licence": "CC0-1.0",
        "attribution": "", "split": "train", "origin": "",
        "more_captions": [], "repairs": [], "opt_outs": [],
    }  # fmt: skip


def random_decoder(*, heads: int, vocab_size: int, grid: tuple[int, int], std: float) -> Decoder:
    """A decoder whose every weight is random: a fresh one has zeros that would hide a leak."""
    torch.manual_seed(0)
    decoder = Decoder(
        ModelSettings(layers=2, width=32, heads=heads),
        vocab_size=vocab_size,
        cells=np.indices(grid).reshape(2, -1).T,
    )
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return decoder
