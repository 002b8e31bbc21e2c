"""The tokenize stage: the codes of every image that has none yet, each image decoded once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.ahead import ahead
from pipeline.engine.fingerprint import unit_interval
from pipeline.engine.stage import Output, Work
from pipeline.engine.storage import to_path
from pipeline.images import decode
from pipeline.references import image_bytes
from tokenizer_cache.earlier_codes import EarlierCodes
from tokenizer_cache.packed_codes import bits_per_code, pack
from tokenizer_cache.settings import PublishedVQSettings, VQSettings

if TYPE_CHECKING:
    from tokenizer_cache.vq.tokenizer import VQTokenizer

_MAX_BATCH_SIZE, _BATCH_PIXELS = 64, 1 << 20
"""Ours: more is no faster on a CPU; a published network holds 0.5 kB for each pixel."""
_MEASURED = 64
"""Decoding one image in 16 took 4 % of the stage's time, with a small decoder."""


class EncodeWorker:
    """Encodes the images of one part.

    Reads: `records`; the model `vq`; from `work.extra` the fingerprint of the `tokenizer`, and the
        root of the `corpus`, where earlier files of `tokens` hold codes of the same images.
    Writes: one row of `tokens` per distinct image.
    Rejects: none; ingest has left out what cannot be decoded.
    Source: VQ-VAE (van den Oord et al., arXiv:1711.00937).
    """

    def __init__(
        self, _settings: VQSettings | PublishedVQSettings, models: Mapping[str, Path]
    ) -> None:
        self._models = models
        self._earlier: EarlierCodes | None = None

    @cached_property
    def _tokenizer(self) -> VQTokenizer:
        """Loaded with the first picture: a part of texts needs no torch."""
        from pipeline.device import use_threads
        from tokenizer_cache.vq.tokenizer import load_vq

        use_threads(1)
        return load_vq(self._models["vq"])

    def __call__(self, work: Work) -> Output:
        """The codes of the part's images, in the order in which the images appear first."""
        tokenizer = work.extra["tokenizer"]
        if self._earlier is None:
            self._earlier = EarlierCodes(to_path(work.extra["corpus"]), tokenizer)
        named = work.read("records", ["image_id"]).column(0).drop_null().unique().to_pylist()
        rows = self._earlier.find(work.part, named)
        new = _first_with(work, set(named) - rows.keys())
        ids = iter(new)
        for pixels in self._batches(work, list(new.values())):
            codes = self._tokenizer.encode_pixels(pixels)  # (B, h, w)
            batch = list(islice(ids, len(codes)))
            errors = self._errors(batch, pixels, codes)
            bits = bits_per_code(self._tokenizer.codebook_size)
            for image_id, packed in zip(batch, pack(codes, bits), strict=True):
                rows[image_id] = {
                    "image_id": image_id,
                    "tokenizer": tokenizer,
                    "rows": codes.shape[1],
                    "columns": codes.shape[2],
                    "bits": bits,
                    "codes": packed,
                    "squared_error": errors.get(image_id),
                }
        return Output(rows=[rows[image_id] for image_id in named])

    def _errors(
        self, ids: Sequence[str], pixels: np.ndarray, codes: np.ndarray
    ) -> dict[str, float]:
        """The squared error of one image in 64, chosen by its id: what tells of drift."""
        chosen = [n for n, name in enumerate(ids) if unit_interval("error", name) * _MEASURED < 1]
        if not chosen or not self._tokenizer.can_decode:
            return {}
        errors = self._tokenizer.squared_errors(pixels[chosen], codes[chosen])
        return {ids[n]: float(error) for n, error in zip(chosen, errors, strict=True)}

    def _batches(self, work: Work, records: Sequence[Mapping[str, Any]]) -> Iterator[np.ndarray]:
        """Prepared batches (B, …); the next one is prepared while this one is used."""
        if not records:
            return iter(())  # nothing is loaded
        size = max(1, min(_MAX_BATCH_SIZE, _BATCH_PIXELS // self._tokenizer.num_pixels))
        return ahead(partial(self._decode, work), records, size)

    def _decode(self, work: Work, records: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Prepared images: (B, …)."""
        contents = zip(work.each(records), image_bytes(records), strict=True)
        return np.stack([self._tokenizer.prepare(decode(content)) for _, content in contents])


def _first_with(work: Work, image_ids: Set[str]) -> dict[str, dict[str, Any]]:
    """The first record with each of these images, in the order of the part."""
    images: dict[str, dict[str, Any]] = {}
    if image_ids:
        columns = ["record_id", "image_id", "image", "image_ref"]
        for record in work.read("records", columns).to_pylist():
            if record["image_id"] in image_ids:
                images.setdefault(record["image_id"], record)
    return images
