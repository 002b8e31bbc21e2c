"""The tokenize stage: the codes of every image, each image decoded once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pipeline.device import use_threads
from pipeline.engine.stage import Output, Row, Work
from pipeline.images import decode, fit_square
from pipeline.references import image_bytes
from tokenizer_cache.settings import VQSettings
from tokenizer_cache.vq.tokenizer import load_vq

_BATCH_SIZE = 64
"""Ours: more is no faster on a CPU, and so many decoded images fit in memory."""


class EncodeWorker:
    """Encodes the images of one part.

    Reads: `records`; the model `vq`.
    Writes: one row of `tokens` per distinct image.
    Rejects: none; ingest has left out what cannot be decoded.
    Source: VQ-VAE (van den Oord et al., arXiv:1711.00937).
    """

    def __init__(self, _settings: VQSettings, models: Mapping[str, Path]) -> None:
        use_threads(1)
        self._tokenizer = load_vq(models["vq"])

    def __call__(self, work: Work) -> Output:
        """The codes of the part's images, in the order in which the images appear first."""
        records = work.read("records", ["image_id", "image", "image_ref"]).to_pylist()
        images = {record["image_id"]: record for record in records if record["image_id"]}
        codes = [
            each
            for pixels in self._batches(list(images.values()))
            for each in self._tokenizer.encode_pixels(pixels)
        ]
        return Output(
            rows=[_row(image_id, each) for image_id, each in zip(images, codes, strict=True)]
        )

    def _batches(self, images: Sequence[Row]) -> Iterator[np.ndarray]:
        """Decoded batches (B, H, W, 3) uint8; the next one is decoded while this one is used."""
        starts = range(0, len(images), _BATCH_SIZE)
        with ThreadPoolExecutor(max_workers=1) as pool:
            pending = None
            for start in starts:
                following = pool.submit(self._decode, images[start : start + _BATCH_SIZE])
                if pending is not None:
                    yield pending.result()
                pending = following
            if pending is not None:
                yield pending.result()

    def _decode(self, images: Sequence[Row]) -> np.ndarray:
        size = self._tokenizer.settings.image_size
        return np.stack([fit_square(decode(image), size) for image in image_bytes(images)])


def _row(image_id: str, codes: np.ndarray) -> Row:
    rows, columns = codes.shape
    packed = codes.astype("<u2").tobytes()
    return {"image_id": image_id, "rows": rows, "columns": columns, "codes": packed}
