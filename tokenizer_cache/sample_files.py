"""The files of a sample as bytes that depend on nothing but their content."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from pipeline.images import decode
from pipeline.references import image_bytes
from tokenizer_cache.settings import PictureSettings

_EXTENSIONS = {"webp": "webp", "jpeg": "jpg"}


def to_json(value: Any) -> bytes:  # noqa: ANN401 - whatever JSON can say
    """JSON in UTF-8, without a space that it does not need."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def to_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line of JSON for each row."""
    return "\n".join(to_json(row).decode() for row in rows)


def to_npy(codes: np.ndarray) -> bytes:
    """An array in NumPy's own format."""
    stream = io.BytesIO()
    np.save(stream, codes, allow_pickle=False)
    return stream.getvalue()


def shortest(value: float | None) -> float | None:
    """A float32 of a table with the fewest digits that give it back; its float64 has 17."""
    return None if value is None else float(str(np.float32(value)))


def to_pictures(
    records: Sequence[Mapping[str, Any]], settings: PictureSettings
) -> Iterator[dict[str, bytes]]:
    """The picture of each record by its extension, with its shorter side scaled down to a size.

    Args:
        records: with `image_id`, `image` and `image_ref` of the records table; each has an image.
        settings: format, size and quality.
    """
    return (_to_picture(decode(content), settings) for content in image_bytes(records))


def _to_picture(image: Image.Image, settings: PictureSettings) -> dict[str, bytes]:
    scale = settings.size / min(image.size)
    if scale < 1:
        scaled = (round(image.width * scale), round(image.height * scale))
        image = image.resize(scaled, Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, settings.format, quality=settings.quality)
    return {_EXTENSIONS[settings.format]: stream.getvalue()}
