"""What a vision-language model gets to see of a record beside its text.

A request carries its pictures small and encoded, in a column of their own, from the part to the
backend and no further; each backend puts them where its server looks for them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from pipeline.engine.stage import Work
from pipeline.images import PILLOW_MAX_PIXELS, Limits, inspect
from pipeline.references import image_bytes

PICTURES = "pictures"
"""The column of a request with its pictures, each a PNG or a JPEG."""

MOST_PICTURES = 2
"""A request is about one record, or leads from one to the next."""

_COLUMNS = ("record_id", "image_id", "image", "image_ref")

_LOSSY = {"JPEG", "WEBP", "AVIF", "JPEG2000", "HEIF", "JXL"}
_QUALITY = 90
"""Of a JPEG; ours."""

Row = dict[str, Any]
Message = dict[str, Any]


def add_pictures(requests: Sequence[Row], work: Work, max_side: int) -> list[Row]:
    """The requests with the pictures of the records that they are to be written about.

    Who judges a text does so by what the record states, and gets none.

    Args:
        requests: those about a part.
        work: the part.
        max_side: of a picture, in pixels.

    Raises:
        UserError: when a referenced image is gone.
    """
    shown = [_shown(request) for request in requests]
    # Of a type of their own, since there may be none.
    ids_shown = pa.array(sorted({each for ids in shown for each in ids}), pa.string())
    wanted = pc.field("record_id").isin(ids_shown)
    rows = work.read("records", _COLUMNS).filter(wanted).to_pylist()
    pictures = {
        row["record_id"]: shrink(content, max_side)
        for row, content in zip(rows, image_bytes(rows), strict=True)
    }
    return [
        request | {PICTURES: [pictures[each] for each in ids]}
        for request, ids in zip(requests, shown, strict=True)
    ]


def shrink(content: bytes, max_side: int) -> bytes:
    """An image that ingest has taken: upright, RGB, its longer side bounded, as a PNG or a JPEG."""
    found = inspect(content, Limits(max_pixels=PILLOW_MAX_PIXELS))
    found.image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    if found.format in _LOSSY:
        found.image.save(stream, "JPEG", quality=_QUALITY)
    else:
        found.image.save(stream, "PNG")
    return stream.getvalue()


def with_parts(
    messages: Sequence[Mapping[str, str]], parts: Sequence[Mapping[str, Any]]
) -> list[Message]:
    """A chat in which each text is a list of parts, with the given parts before the last text.

    They stand at the end, so that the examples stay in the engine's prefix cache.
    """
    chat: list[Message] = [
        {"role": message["role"], "content": [{"type": "text", "text": message["content"]}]}
        for message in messages
    ]
    chat[-1]["content"][:0] = parts
    return chat


def with_pictures(row: Mapping[str, Any]) -> Any:  # noqa: ANN401 - as Arrow and JSON have it
    """The chat of a request as the OpenAI API takes it: its pictures are data URIs."""
    pictures = row.get(PICTURES)
    if not pictures:
        return row["messages"]
    urls = [{"url": _data_uri(content)} for content in pictures]
    return with_parts(row["messages"], [{"type": "image_url", "image_url": url} for url in urls])


def _data_uri(content: bytes) -> str:
    form = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{form};base64,{base64.b64encode(content).decode()}"


def _shown(request: Mapping[str, Any]) -> list[str]:
    if request["role"] != "write":
        return []
    return [each for each in (request["record_id"], request["next_id"]) if each]
