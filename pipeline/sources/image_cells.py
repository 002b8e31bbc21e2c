"""What the image column of a row holds: bytes, a path, an encoded image, or none of these.

Tables come from other machines and programs: paths have backslashes or `%20`, an image is base64,
a data URI or a list of one, and an address is no image.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from pipeline.sources.files import Problem, kind_of, place_below, plain, read_file

_DATA_URI = re.compile(r"data:(?P<kind>[^,]*),(?P<content>.*)", re.DOTALL | re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_WINDOWS = re.compile(r"[a-z]:[\\/]|\\\\", re.IGNORECASE)
# How PNG, JPEG, GIF, WebP, BMP, TIFF, SVG and AVIF begin; no path is so long without a dot.
_BASE64 = re.compile(
    r"(?:iVBORw|/9j/|R0lGOD|UklGR|Qk|SUkq|TU0A|PHN2Z|PD94b|AAAA)[\w+/\s-]{80,}", re.ASCII
)
_NUM_SHOWN = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCell:
    """An image and, where it is a file of its own, its path."""

    content: bytes
    path: str | None = None


def read_image(value: object, folder: Path | None, max_bytes: int) -> ImageCell | Problem:
    """The image that a cell holds or names.

    Args:
        value: bytes, a path, base64, a data URI, a struct of `bytes` and `path` as `datasets`
            writes it, or a list of one of these.
        folder: where paths start, and what they may not leave; None where no files belong to it.
        max_bytes: how large an image may be.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        known = [value[name] for name in ("bytes", "path", "url") if name in value]
        if not known:
            detail = f"the image is an object with {plain(', '.join(value))}, not `bytes` or `path`"
            return Problem(reason="ingest-wrong-type", detail=detail)
        value = next(filter(None, known), None)
    if value is None or value in ("", b"", []) or value != value:  # noqa: PLR0124 - NaN
        return Problem(reason="ingest-no-image", detail="the image is null or empty")
    if isinstance(value, bytes):
        return _of_size(value, max_bytes)
    if isinstance(value, str):
        return _of_text(value, folder, max_bytes)
    if isinstance(value, list) and all(isinstance(each, str | bytes | dict) for each in value):
        detail = f"the row has {len(value)} images; a record has one (see `kind: interleaved`)"
        return Problem(reason="ingest-several-images", detail=detail)
    detail = f"the image is {kind_of(value)}, not a path or bytes"
    return Problem(reason="ingest-wrong-type", detail=detail)


def _of_size(content: bytes, max_bytes: int) -> ImageCell | Problem:
    return _too_large(len(content), max_bytes) or ImageCell(content=content)


def _too_large(num_bytes: int, max_bytes: int) -> Problem | None:
    if num_bytes <= max_bytes:
        return None
    detail = f"{num_bytes} bytes, allowed are {max_bytes}"
    return Problem(reason="ingest-image-too-large", detail=detail)


def _of_text(value: str, folder: Path | None, max_bytes: int) -> ImageCell | Problem:
    text = value.strip()
    shown = plain(text[:_NUM_SHOWN])
    if uri := _DATA_URI.match(text):
        if uri["kind"].lower().endswith(";base64"):
            return _of_base64(unquote(uri["content"]), max_bytes)
        return _too_large(len(uri["content"]) // 3, max_bytes) or _of_size(
            unquote_to_bytes(uri["content"]), max_bytes
        )
    if _BASE64.match(text):
        return _of_base64(text, max_bytes)
    if folder is None:
        detail = f"the row names the file {shown}, which is not part of the dataset"
        return Problem(reason="ingest-image-missing", detail=detail)
    if text.lower().startswith("file:"):
        value = unquote(urlsplit(text).path)
    elif text.startswith(f"{folder}/"):  # on a store, where `place_below` knows no whole address
        value = text.removeprefix(f"{folder}/")
    return refuse_address(value) or _of_path(value, folder, max_bytes)


def refuse_address(value: str) -> Problem | None:
    """A problem where a text is an address; None for a path."""
    text = value.strip()
    if not _ADDRESS.match(text):
        return None
    shown = plain(text[:_NUM_SHOWN])
    detail = f"{shown} is an address, and anymix does not download; img2dataset does"
    return Problem(reason="ingest-image-is-url", detail=detail)


def _of_path(value: str, folder: Path, max_bytes: int) -> ImageCell | Problem:
    """The file that one reading of a path finds; else what is wrong with the path as it is."""
    problems: list[Problem] = []
    for name in dict.fromkeys(readings(value)):
        path = place_below(folder, name)
        content = path if isinstance(path, Problem) else read_file(path, max_bytes)
        if not isinstance(content, Problem):
            return ImageCell(content=content, path=path.as_posix())  # type: ignore[union-attr]
        problems.append(content)
        if content.reason != "ingest-image-missing":
            break
    if _WINDOWS.match(value.strip()):
        shown = plain(value.strip()[:_NUM_SHOWN])
        detail = f"{shown} is a path of a Windows machine; give paths relative to `image_folder`"
        return Problem(reason="ingest-path-outside", detail=detail)
    return problems[-1] if problems[-1].reason != "ingest-image-missing" else problems[0]


def readings(value: str) -> Iterator[str]:
    """What a path may mean, the likeliest first: as it is, stripped, unquoted, with backslashes.

    Then with each accent a sign of its own, as macOS writes names into archives, and with none so.
    """
    stripped = value.strip()
    names = [value, stripped, unquote(stripped)]
    if not _WINDOWS.match(stripped):
        names += [name.replace("\\", "/") for name in names[1:]]
    yield from names
    yield from (unicodedata.normalize(form, name) for form in ("NFD", "NFC") for name in names)


def _of_base64(text: str, max_bytes: int) -> ImageCell | Problem:
    """The bytes that base64 stands for, in its usual or its URL-safe alphabet."""
    text = re.sub(r"\s+", "", text).rstrip("=").replace("-", "+").replace("_", "/")
    if (problem := _too_large(len(text) * 3 // 4, max_bytes)) is not None:
        return problem
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        detail = f"the base64 from {plain(text[:20])!r} on is damaged"
        return Problem(reason="ingest-image-malformed", detail=detail)
    return ImageCell(content=content)
