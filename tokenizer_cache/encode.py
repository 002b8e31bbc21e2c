"""The tokenize stage: the codes of every image that has none yet, each image decoded once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.ahead import ahead
from pipeline.device import use_threads
from pipeline.engine.fingerprint import unit_interval
from pipeline.engine.stage import Output, Row, Work
from pipeline.engine.storage import to_path
from pipeline.images import decode
from pipeline.references import image_bytes
from tokenizer_cache.earlier_codes import EarlierCodes
from tokenizer_cache.packed_codes import bits_per_code, pack
from tokenizer_cache.settings import TokenizeSettings

if TYPE_CHECKING:
    from tokenizer_cache.vq.tokenizer import VQTokenizer

_MAX_BATCH_SIZE, _BATCH_PIXELS = 64, 1 << 20
"""Ours: more is no faster on a CPU; a published network holds 0.5 kB for each pixel."""
_MEASURED = 64
"""Decoding one image in 16 took 4 % of the stage's time, with a small decoder."""


Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels."""

_Batch = tuple[np.ndarray, list[list[Box]]]
"""Prepared views (B * views, …), those of an image together, and the boxes of each image's."""


class EncodeWorker:
    """Encodes the images of one part.

    Reads: `records`; the model `vq`; from `work.extra` the fingerprint of the `tokenizer`, and the
        root of the `corpus`, where earlier files of `tokens` hold codes of the same images.
    Writes: a row of `tokens` per distinct image, and one for each of its crops.
    Rejects: none; ingest has left out what cannot be decoded.
    Source: VQ-VAE (van den Oord et al., arXiv:1711.00937).
    """

    def __init__(self, settings: TokenizeSettings, models: Mapping[str, Path]) -> None:
        self._num_views = 1 + settings.crops
        self._models = models
        self._earlier: EarlierCodes | None = None

    @cached_property
    def _tokenizer(self) -> VQTokenizer:
        """Loaded with the first picture: a part of texts needs no torch."""
        from tokenizer_cache.vq.tokenizer import load_vq

        return load_vq(self._models["vq"])

    def __call__(self, work: Work) -> Output:
        """The codes of the part's images, in the order in which the images appear first."""
        tokenizer = work.extra["tokenizer"]
        if self._earlier is None:
            self._earlier = EarlierCodes(to_path(work.extra["corpus"]), tokenizer)
        named = work.read("records", ["image_id"]).column(0).drop_null().unique().to_pylist()
        rows = self._earlier.find(work.part, named)
        if new := _first_with(work, set(named) - rows.keys()):
            rows |= self._encode(work, new, tokenizer)
        return Output(rows=[row for image_id in named for row in rows[image_id]])

    @use_threads(1)
    def _encode(
        self, work: Work, new: Mapping[str, Mapping[str, Any]], tokenizer: str
    ) -> dict[str, list[Row]]:
        """The rows of images, given a record with each."""
        rows: dict[str, list[Row]] = {}
        ids = iter(new)
        for pixels, boxes in self._batches(work, list(new.values())):
            codes = self._tokenizer.encode_pixels(pixels)  # (B * views, h, w)
            batch = list(islice(ids, len(boxes)))
            errors = self._errors(batch, pixels[:: self._num_views], codes[:: self._num_views])
            bits = bits_per_code(self._tokenizer.codebook_size)
            packed = iter(pack(codes, bits))
            for image_id, own in zip(batch, boxes, strict=True):
                rows[image_id] = [
                    {
                        "image_id": image_id,
                        "tokenizer": tokenizer,
                        "view": view,
                        "box": box,
                        "rows": codes.shape[1],
                        "columns": codes.shape[2],
                        "bits": bits,
                        "codes": next(packed),
                        "squared_error": None if view else errors.get(image_id),
                    }
                    for view, box in enumerate(own)
                ]
        return rows

    def _errors(
        self, ids: Sequence[str], pixels: np.ndarray, codes: np.ndarray
    ) -> dict[str, float]:
        """The squared error of one image in 64, chosen by its id: what tells of drift."""
        chosen = [n for n, name in enumerate(ids) if unit_interval("error", name) * _MEASURED < 1]
        if not chosen or not self._tokenizer.can_decode:
            return {}
        errors = self._tokenizer.squared_errors(pixels[chosen], codes[chosen])
        return {ids[n]: float(error) for n, error in zip(chosen, errors, strict=True)}

    def _batches(self, work: Work, records: Sequence[Mapping[str, Any]]) -> Iterator[_Batch]:
        """Prepared batches; the next one is prepared while this one is used."""
        num = min(_MAX_BATCH_SIZE, _BATCH_PIXELS // self._tokenizer.num_pixels)
        return ahead(partial(self._decode, work), records, max(1, num // self._num_views))

    def _decode(self, work: Work, records: Sequence[Mapping[str, Any]]) -> _Batch:
        pixels = []
        boxes = []
        for record, content in zip(work.each(records), image_bytes(records), strict=True):
            image = decode(content)
            own = squares(record["image_id"], image.size, self._num_views)
            crops = (image.crop(box) for box in own[1:])
            pixels += [self._tokenizer.prepare(each) for each in (image, *crops)]
            boxes.append(own)
        return np.stack(pixels), boxes


def squares(image_id: str, size: tuple[int, int], num: int) -> list[Box]:
    """The square in the middle of an image of a size (width, height), and others that it draws."""
    shorter = min(size)
    boxes = []
    for view in range(num):
        names = ("side", "left", "top")
        draws = [unit_interval("crop", image_id, str(view), name) for name in names]
        side = shorter if view == 0 else round(shorter * (1 + draws[0]) / 2)
        at = (0.5, 0.5) if view == 0 else draws[1:]
        left, top = (int((whole - side + 1) * place) for whole, place in zip(size, at, strict=True))
        boxes.append((left, top, left + side, top + side))
    return boxes


def _first_with(work: Work, image_ids: Set[str]) -> dict[str, dict[str, Any]]:
    """The first record with each of these images, in the order of the part."""
    images: dict[str, dict[str, Any]] = {}
    if image_ids:
        columns = ["record_id", "image_id", "image", "image_ref"]
        for record in work.read("records", columns).to_pylist():
            if record["image_id"] in image_ids:
                images.setdefault(record["image_id"], record)
    return images
