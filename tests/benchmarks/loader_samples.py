"""Samples of a realistic mix of lengths, for the benchmark of the loaders."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tokenizer_cache.shard_writing import write_shard
from tokenizer_cache.text import TextTokenizer
from tokenizer_cache.vocabulary import TokenizerDescription, Vocabulary, build_vocabulary

GRID = (24, 24)
_CODEBOOK_SIZE = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A sample: texts with their captions, and as many pictures (0, 1 or 2)."""

    stream: str
    texts: Sequence[Sequence[dict[str, Any]]]
    codes: np.ndarray

    def files(self) -> dict[str, bytes]:
        """The files of the sample in a shard."""
        about: dict[str, Any] = {"record_ids": ["0123456789abcdef"], "provenance": [_PROVENANCE]}
        if self.stream == "text":
            text = self.texts[0][0]["text"]
            return {"txt": text.encode(), "json": json.dumps(about).encode()}
        stream = io.BytesIO()
        np.save(stream, self.codes[0] if self.stream == "image" else self.codes)
        if self.stream == "image":
            about["captions"] = self.texts[0]
        else:
            about["segments"] = [
                each
                for number, captions in enumerate(self.texts)
                for each in (
                    {"type": "image", "index": number},
                    {"type": "text", "captions": captions},
                )
            ]
        content = json.dumps({**about, "variants": ""}, separators=(",", ":"))
        return {"codes.npy": stream.getvalue(), "json": content.encode()}


class Samples:
    """Draws samples whose texts are words of a language that nobody speaks."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        letters = list("etaoinshrdlu")
        self._words = ["".join(self._rng.choice(letters, size)) for size in
                       self._rng.integers(2, 9, 5000)]  # fmt: skip
        self._chances = 1 / np.arange(1, 5001) / (1 / np.arange(1, 5001)).sum()  # Zipf's law
        self.tokenizer = Tokenizer(models.BPE())
        self.tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=4096, show_progress=False)
        self.tokenizer.train_from_iterator([self._text(200) for _ in range(500)], trainer)
        self.text = TextTokenizer(self.tokenizer)

    def make(self, stream: str) -> Made:
        """The next sample of a stream: prose of 150 words in the median, captions of 25."""
        if stream == "text":
            return Made(
                stream=stream,
                texts=[[self._caption(self._rng.lognormal(5.0, 1.0))]],
                codes=self._codes(0),
            )
        num_pictures = 1 if stream == "image" else 2
        return Made(
            stream=stream,
            texts=[
                [self._caption(self._rng.lognormal(3.2, 0.5)) for _ in range(3)]
                for _ in range(num_pictures)
            ],
            codes=self._codes(num_pictures),
        )

    def bytes_per_sample(self, folder: Path) -> float:
        """What a sample with one caption of 12 words takes in a tar."""
        files = {}
        for number in range(500):
            made = self.make("image")
            one = Made(stream="image", texts=[[self._caption(12)]], codes=made.codes)
            files[f"{number:016}"] = one.files()
        path = folder / "one-caption.tar"
        write_shard(path, files, self.text, "bpe")
        return path.stat().st_size / len(files)

    def _caption(self, num_words: float) -> dict[str, Any]:
        return {
            "variant_id": "original", "kind": "original", "form": "", "weight": 1.0,
            "text": self._text(max(int(num_words), 3)), "clip_score": 0.28173828125,
        }  # fmt: skip

    def _text(self, num_words: int) -> str:
        return " ".join(self._rng.choice(self._words, num_words, p=self._chances))

    def _codes(self, num_pictures: int) -> np.ndarray:
        return self._rng.integers(0, _CODEBOOK_SIZE, (num_pictures, *GRID)).astype(np.uint16)


_PROVENANCE = {
    "image_id": hashlib.sha256(b"").hexdigest(), "source": "pictures",
    "origin": "https://example.org/pictures/0123456789.jpg", "licence": "CC BY-SA 4.0",
    "attribution": "somebody",
}  # fmt: skip


def vocabulary(grid: tuple[int, int]) -> Vocabulary:
    """The vocabulary of samples with such code grids."""
    return build_vocabulary(
        TokenizerDescription(modality="text", num_tokens=4096, fingerprint="bpe"),
        TokenizerDescription(
            modality="image", num_tokens=_CODEBOOK_SIZE, fingerprint="vq", grid=grid
        ),
    )


def write_rival_samples(path: Path, samples: Iterable[Made], text: TextTokenizer) -> None:
    """Write samples as flat arrays, all of their texts as ids."""
    columns: dict[str, list[np.ndarray]] = {
        name: [] for name in ("codes", "ids", "lengths", "upto", "counts")
    }
    for sample in samples:
        ids = [text.encode(caption["text"]) for each in sample.texts for caption in each]
        counts = [len(each) for each in sample.texts]
        upto = [np.arange(1, count + 1) / count for count in counts]
        columns["codes"].append(sample.codes.ravel())
        columns["ids"].append(np.concatenate([np.array(each, np.uint32) for each in ids]))
        columns["lengths"].append(np.array([len(each) for each in ids], np.int32))
        columns["upto"].append(np.concatenate(upto).astype(np.float32))
        columns["counts"].append(np.array(counts, np.int32))
    arrays = {}
    for name, values in columns.items():
        arrays[name] = np.concatenate(values)
        arrays[f"{name}_ends"] = np.cumsum([0, *map(len, values)])
    np.savez(path, **arrays)
