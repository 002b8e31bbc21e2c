"""The tokenize stage: the codes of every image, each image decoded once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.engine.fingerprint import unit_interval
from pipeline.engine.stage import Output, Row, Work
from pipeline.images import decode
from pipeline.references import image_bytes
from tokenizer_cache.settings import PublishedVQSettings, VQSettings

if TYPE_CHECKING:
    from tokenizer_cache.vq.tokenizer import VQTokenizer

_MAX_BATCH_SIZE, _BATCH_PIXELS = 64, 1 << 20
"""Ours: more is no faster on a CPU; a published network holds 0.5 kB for each pixel."""
_MEASURED = 16
"""Decoding one image in so many costs a few percent and still tells a part's error."""


class EncodeWorker:
    """Encodes the images of one part.

    Reads: `records`; the model `vq`.
    Writes: one row of `tokens` per distinct image.
    Rejects: none; ingest has left out what cannot be decoded.
    Source: VQ-VAE (van den Oord et al., arXiv:1711.00937).
    """

    def __init__(
        self, _settings: VQSettings | PublishedVQSettings, models: Mapping[str, Path]
    ) -> None:
        self._models = models

    @cached_property
    def _tokenizer(self) -> VQTokenizer:
        """Loaded with the first picture: a part of texts needs no torch."""
        from pipeline.device import use_threads
        from tokenizer_cache.vq.tokenizer import load_vq

        use_threads(1)
        return load_vq(self._models["vq"])

    def __call__(self, work: Work) -> Output:
        """The codes of the part's images, in the order in which the images appear first."""
        columns = ["record_id", "image_id", "image", "image_ref"]
        images: dict[str, Mapping[str, Any]] = {}
        for record in work.read("records", columns).to_pylist():
            if record["image_id"] is not None:
                images.setdefault(record["image_id"], record)
        ids = iter(images)
        rows: list[Row] = []
        for pixels in self._batches(work, list(images.values())):
            codes = self._tokenizer.encode_pixels(pixels)  # (B, h, w)
            batch = list(islice(ids, len(codes)))
            errors = self._errors(batch, pixels, codes)
            rows += [
                _row(image_id, each, errors.get(image_id))
                for image_id, each in zip(batch, codes, strict=True)
            ]
        return Output(rows=rows)

    def _errors(
        self, ids: Sequence[str], pixels: np.ndarray, codes: np.ndarray
    ) -> dict[str, float]:
        """The squared error of one image in 16, chosen by its id: what tells of drift."""
        chosen = [n for n, name in enumerate(ids) if unit_interval("error", name) * _MEASURED < 1]
        if not chosen or not self._tokenizer.can_decode:
            return {}
        errors = self._tokenizer.squared_errors(pixels[chosen], codes[chosen])
        return {ids[n]: float(error) for n, error in zip(chosen, errors, strict=True)}

    def _batches(self, work: Work, records: Sequence[Mapping[str, Any]]) -> Iterator[np.ndarray]:
        """Prepared batches (B, …); the next one is prepared while this one is used."""
        size = max(1, min(_MAX_BATCH_SIZE, _BATCH_PIXELS // self._tokenizer.num_pixels))
        starts = range(0, len(records), size)
        with ThreadPoolExecutor(max_workers=1) as pool:
            pending = None
            for start in starts:
                following = pool.submit(self._decode, work, records[start : start + size])
                if pending is not None:
                    yield pending.result()
                pending = following
            if pending is not None:
                yield pending.result()

    def _decode(self, work: Work, records: Sequence[Mapping[str, Any]]) -> np.ndarray:
        contents = zip(work.each(records), image_bytes(records), strict=True)
        return np.stack([self._tokenizer.prepare(decode(content)) for _, content in contents])


def _row(image_id: str, codes: np.ndarray, squared_error: float | None) -> Row:
    rows, columns = codes.shape
    packed = codes.astype("<u2").tobytes()
    return {
        "image_id": image_id,
        "rows": rows,
        "columns": columns,
        "codes": packed,
        "squared_error": squared_error,
    }
