"""Why a picture is not used, in the words of a person who wants to put it right."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import Literal

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from pipeline.containers import START_OF_SCAN, jpeg_segments
from pipeline.errors import RejectError
from pipeline.image_formats import OTHER_FILES, UNREAD_PICTURES, first_match

_ADVICE = "save it as a PNG, JPEG or WebP file"

_PHOTOMETRIC = {
    0: "grey, white is zero",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "transparency mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    32803: "a camera's raw pattern",
    34892: "a camera's linear raw data",
}
_NUMBERS = {1: "", 2: " signed", 3: " floating-point", 5: " complex", 6: " complex"}
_UNREAD_JPEG = {0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical"}
_OFFSETS_AND_SIZES = ((273, 279), (324, 325))
"""A TIFF's tags for where its strips or tiles lie and how long they are."""


class ImageError(RejectError):
    """An image that will not be used."""


def explain(error: Exception, name: str, content: bytes) -> ImageError:
    """The reject for a picture of a named format that Pillow could not decode."""
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return ImageError("decode-too-many-pixels", f"its header states more than {limit:,} pixels")
    if _breaks_off(error, name, content):
        message = (
            f"it is {_a(name)} file that breaks off after {len(content)} bytes; fetch it again"
        )
        return ImageError("decode-truncated", message)
    if name == "JPEG" and (kind := _unread_jpeg(content)):
        message = f"it is a JPEG file with {kind}, which is not read here; {_ADVICE}"
        return ImageError("decode-unsupported-format", message)
    if str(error).startswith("Unsupported BMP"):
        kind = str(error).removeprefix("Unsupported BMP ")
        message = f"it is {_a(name)} file with a {kind} that is not read here; {_ADVICE}"
        return ImageError("decode-unsupported-format", message)
    if name == "TIFF" and isinstance(error, UnidentifiedImageError):
        return _explain_tiff(_tiff_tags(content))
    return ImageError("decode-failed", _damage(error, name, content))


def _a(name: str) -> str:
    return f"{'an' if name.startswith(('A', 'E', 'I', 'MP', 'O')) else 'a'} {name}"


def _damage(error: Exception, name: str, content: bytes) -> str:
    if name == "JPEG XL":  # its decoder's words are about how it was compiled
        return "it is a JPEG XL file whose data are damaged or break off"
    if not isinstance(error, UnidentifiedImageError):
        said = str(error).strip().partition("\n")[0]
        if name == "TIFF" and said.startswith("decoder error"):
            method = _tiff_tags(content).get(259, (1,))[0]
            how = TiffImagePlugin.COMPRESSION_INFO.get(method, f"method {method}")
            return f"it is a TIFF file whose data, compressed by {how}, libtiff cannot decode"
        if said.startswith("invalid literal"):
            said = "there is something else where a number should be"
        return f"it is {_a(name)} file whose data are damaged: {said}"
    if name == "PNG":
        return "it is a PNG file whose header or palette is damaged"
    return f"it begins as {_a(name)} file, but what follows is not of that format"


def explain_unknown(content: bytes) -> ImageError:
    """The reject for bytes of which nothing here reads a picture."""
    if name := first_match(content, UNREAD_PICTURES):
        message = f"it is {_a(name)} file, which is not read here; {_ADVICE}"
        return ImageError("decode-unsupported-format", message)
    if name := first_match(content, OTHER_FILES):
        return ImageError("decode-not-an-image", f"it is {_a(name)} file, not an image")
    start = content[:64].decode("utf-8", "ignore")
    if start.isprintable() and len(start) > 3:
        return ImageError("decode-not-an-image", f"it is text, not an image: {start!r}")
    message = f"its first bytes are those of no image that is read here: {content[:16]!r}"
    return ImageError("decode-not-an-image", message)


def _breaks_off(error: Exception, name: str, content: bytes) -> bool:  # noqa: PLR0911 - by format
    """Whether the bytes end before the picture does."""
    match name:
        case "PNG":
            return "image file is truncated" in str(error) or b"IEND" not in content
        case "GIF":
            has_end = content.rstrip(b"\0").endswith(b";")
            return not (has_end or isinstance(error, UnidentifiedImageError))
        case "WebP":
            return int.from_bytes(content[4:8], "little") + 8 > len(content)
        case "JPEG" if not any(marker == START_OF_SCAN for marker, *_ in jpeg_segments(content)):
            return True
        case "JPEG 2000":
            return b"\xff\xd9" not in content[-16:]
        case "AVIF" | "HEIC" | "JPEG XL":
            return _boxes_reach_beyond(content)
        case "TIFF":
            tags = _tiff_tags(content)
            return _lacks_tags(content) or _strips_reach_beyond(tags, len(content))
        case "BMP" if "Unsupported" not in str(error):
            return int.from_bytes(content[2:6], "little") > len(content)
        case "ICO":
            entries = (content[at : at + 16] for at in range(6, 6 + 16 * content[4], 16))
            ends = (sum(struct.unpack("<8xII", entry)) for entry in entries if len(entry) == 16)
            return max(ends, default=0) > len(content)
    said = str(error).lower()
    return any(words in said for words in ("truncated", "eof", "not enough image data"))


def _lacks_tags(tiff: bytes) -> bool:
    """Whether the tags of a TIFF's first page, which many writers put last, lie behind its end."""
    order: Literal["little", "big"] = "little" if tiff.startswith(b"II") else "big"
    # BigTIFF has longer offsets, counts and entries.
    size, count_size, entry_size = (8, 8, 20) if 43 in tiff[2:4] else (4, 2, 12)
    at = int.from_bytes(tiff[size : 2 * size], order) + count_size
    count = int.from_bytes(tiff[at - count_size : at], order)
    return at + count * entry_size > len(tiff)


def _boxes_reach_beyond(content: bytes) -> bool:
    """Whether the lengths of an ISO media file's boxes go on after the bytes."""
    position = 0
    while content[:2] != b"\xff\x0a" and position + 8 <= len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        if size < 8:  # 0 is "to the end of the file", 1 a 64-bit length
            return False
        position += size
    return position > len(content)


def _strips_reach_beyond(tags: Mapping[int, tuple[int, ...]], length: int) -> bool:
    return any(
        offset + size > length
        for offsets, sizes in _OFFSETS_AND_SIZES
        for offset, size in zip(tags.get(offsets, ()), tags.get(sizes, ()), strict=False)
    )


def _unread_jpeg(content: bytes) -> str:
    """What a JPEG file has that libjpeg does not decode to 8 bits; nothing where it does."""
    for marker, payload, _ in jpeg_segments(content):
        if marker in _UNREAD_JPEG:
            return f"{_UNREAD_JPEG[marker]} compression"
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            return f"{payload[0]} bits a sample" if payload[:1] in {b"\x0c", b"\x10"} else ""
    return ""


def _tiff_tags(content: bytes) -> dict[int, tuple[int, ...]]:
    """The whole numbers in the tags of a TIFF's first page; nothing where they are damaged."""
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(content[: 16 if 43 in content[2:4] else 8])
        stream = io.BytesIO(content)
        stream.seek(tags.next)
        tags.load(stream)
        values = {
            tag: value if isinstance(value, tuple) else (value,) for tag, value in tags.items()
        }
    except Exception:  # noqa: BLE001 - a dozen unrelated types on damaged tags
        return {}
    return {
        tag: numbers
        for tag, numbers in values.items()
        if numbers and all(isinstance(each, int) for each in numbers)
    }


def _explain_tiff(tags: Mapping[int, tuple[int, ...]]) -> ImageError:
    """The reject for a TIFF that Pillow does not open: damaged, or of a kind that is not read."""
    if not {256, 257, 262} <= tags.keys():
        message = "it is a TIFF file whose tags are damaged: there is no size or no colour space"
        return ImageError("decode-failed", message)
    bits, (numbers, *_), (photometric, *_) = tags.get(258, (1,)), tags.get(339, (1,)), tags[262]
    kind = _NUMBERS.get(numbers, " undefined")
    colours = _PHOTOMETRIC.get(photometric, f"photometric interpretation {photometric}")
    message = f"it is a TIFF file ({colours}) with {len(bits)} x {max(bits)}{kind} bits a pixel"
    if (compression := tags.get(259, (1,))[0]) not in TiffImagePlugin.COMPRESSION_INFO:
        message += f", compressed by method {compression}"
    # Numbers that are no brightness from black to white need a person's choice of a scale.
    is_measured = bool(kind) or max(bits) > 16
    reason = "decode-unsupported-mode" if is_measured else "decode-unsupported-format"
    return ImageError(reason, f"{message}, which is not read here; {_ADVICE}")
