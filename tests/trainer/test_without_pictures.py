"""Corpora of texts alone and of sounds alone, from their shards to a judged model."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

from pipeline.engine.tables import write_table
from pipeline.engine.token_schemas import SAMPLES
from pipeline.errors import UserError
from tests.trainer.conftest import PROSE, Squares, train_run
from tokenizer_cache.manifest import open_manifest, shard_name
from tokenizer_cache.publishing import publish, staged_folder
from tokenizer_cache.shard_writing import write_shard
from tokenizer_cache.text import describe_text, load_text
from tokenizer_cache.vocabulary import TokenizerDescription, build_vocabulary
from trainer.evaluate.evaluation import evaluate
from trainer.evaluate.settings import EvaluateSettings
from trainer.generate.sample import draw
from trainer.generate.settings import SampleSettings
from trainer.run import load_run, read_metrics
from trainer.settings import ModelSettings, TrainSettings

SETTINGS = TrainSettings(
    model=ModelSettings(layers=1, width=32, heads=2), seq_len=96, tokens_per_step=192, steps=2,
    evaluate_rows=1,
)  # fmt: skip
SOUNDS = TokenizerDescription(modality="audio", num_tokens=8, fingerprint="sounds")


def sample(stream: str, number: int) -> dict[str, bytes]:
    if stream == "text":
        return {"txt": PROSE.encode(), "json": b"{}"}
    content = io.BytesIO()
    np.save(content, np.full((9, 1), number % 8, np.uint16))
    about = {"captions": [{"text": f"sound {number}"}]}
    return {"audio.npy": content.getvalue(), "json": json.dumps(about).encode()}


def corpus_of(stream: str, squares: Squares, folder: Path) -> Squares:
    text = squares.models["text"]
    rows = []
    for split in ("train", "validation"):
        path = staged_folder(folder, "part", "print") / shard_name(stream, split, 0)
        files = {f"{split}{n}": sample(stream, n) for n in range(9)}
        shard = write_shard(path, files, load_text(text), describe_text(text).fingerprint)
        place = {"stream": stream, "split": split, "record_ids": [], "variant_ids": []}
        rows += [{"key": key, **place, **shard} for key in files]
    table = folder / "samples/print/part.parquet"
    write_table(table, rows, SAMPLES)
    tokenizers = [describe_text(text), *([SOUNDS] if stream == "audio" else [])]
    publish(folder, [table], build_vocabulary(*tokenizers), state=stream)
    return Squares(shards=folder, models={"text": text}, manifest=open_manifest(folder))


@pytest.mark.parametrize("stream", ["text", "audio"])
def test_a_corpus_without_pictures_is_trained_on_and_judged(
    squares: Squares, tmp_path: Path, stream: str
) -> None:
    corpus = corpus_of(stream, squares, tmp_path / "shards")
    train_run(corpus, tmp_path / "run", SETTINGS)
    assert math.isfinite(read_metrics(tmp_path / "run")[-1]["train"][stream])
    run = load_run(tmp_path / "run")
    evaluation = evaluate(run, corpus.manifest, EvaluateSettings(), sampling=SampleSettings())
    assert set(evaluation.held_out) == {stream, "all"}
    assert evaluation.condition is None
    with pytest.raises(UserError, match="was trained without pictures"):
        draw(run, ["a square"], SampleSettings())
