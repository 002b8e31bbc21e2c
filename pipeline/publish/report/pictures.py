"""Pictures for the page: small, and inside it as `data:` URIs."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from pipeline import images

_THUMBNAIL = 128  # pixels; a page with 44 of them stays below 500 kB
_SHEET = 1600
_LOSSLESS_UP_TO = 64  # pixels; drawings as small as that are smaller without loss


def thumbnail(content: bytes) -> str:
    """A record's image as a `data:` URI, at most 128 pixels on its longer side."""
    return _encode(images.decode(content), _THUMBNAIL)


def sheet(path: Path) -> str | None:
    """A picture of our own making as a `data:` URI; None where there is none."""
    return _encode(images.decode(path.read_bytes()), _SHEET) if path.exists() else None


def _encode(image: Image.Image, side: int) -> str:
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    if max(image.size) <= _LOSSLESS_UP_TO:
        image.save(buffer, "WEBP", lossless=True)
    else:
        image.save(buffer, "WEBP", quality=88, method=6)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
