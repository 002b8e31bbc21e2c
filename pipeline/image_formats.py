"""What bytes are, told by the bytes alone, and the one decoder of Pillow's that may open them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module

from pipeline.containers import media_boxes

_PICTURES = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "GIF": rb"GIF8",
    "WebP": rb"RIFF.{4}WEBP",
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "DIB": rb"(?:\x0c\0\0\0.{4}|[\x28\x34\x38\x40\x6c\x7c]\0\0\0.{8})\x01\0",
    "TIFF": rb"(?:II[*+]\0|MM\0[*+]|II\0\*|MM\*\0)",
    "JPEG 2000": rb"(?:\0\0\0\x0cjP  |\xff\x4f\xff\x51)",
    "AVIF": rb".{4}ftyp(?:.{4}){0,15}?avi[fs]",
    "HEIC": rb".{4}ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)",
    "JPEG XL": rb"(?:\xff\x0a|\0\0\0\x0cJXL )",
    "ICO": rb"\0\0\x01\0",
    "PPM": rb"P[1-6fy]\s+[#\d]",
}
"""What is decoded here. Pillow's other decoders stay shut: EPS runs a program."""

_OPENERS = {"WebP": "WEBP", "JPEG 2000": "JPEG2000"}
"""Pillow's own names, where they are others."""

UNREAD_PICTURES = {
    "Photoshop": rb"8BPS",
    "PostScript": rb"(?:%!PS|\xc5\xd0\xd3\xc6)",
    "JPEG XR": rb"II\xbc",
    "OpenEXR": rb"v/1\x01",
    "Radiance HDR": rb"#\?RADIANCE",
    "PAM": rb"P7\s",
    "PFM": rb"PF\s",
    "QOI": rb"qoif",
    "DDS": rb"DDS ",
    "GIMP": rb"gimp xcf",
    "Windows cursor": rb"\0\0\x02\0\x01\0",
    "Apple icon": rb"icns",
    "DICOM": rb".{128}DICM",
}
OTHER_FILES = {
    "PDF": rb"%PDF",
    "gzip": rb"\x1f\x8b",
    "ZIP": rb"PK\x03\x04",
    "Git LFS pointer": rb"version https://git-lfs",
    "JSON": rb"\s*[{\[]",
    "MP4 or QuickTime": rb".{4}(?:ftyp|moov|mdat)",
    "WAV": rb"RIFF.{4}WAVE",
    "AVI": rb"RIFF.{4}AVI ",
    "FLAC": rb"fLaC",
    "Ogg": rb"OggS",
    "MP3": rb"(?:ID3|\xff[\xfa\xfb\xf2\xf3])",
    "Matroska or WebM": rb"\x1a\x45\xdf\xa3",
    "Parquet": rb"PAR1",
    "NumPy": rb"\x93NUMPY",
}

_PLUGINS = {"HEIC": ("pillow_heif", "HEIF", "heif"), "JPEG XL": ("pillow_jxl", "JXL", "jxl")}
"""For each format that a plug-in decodes: its module, its name of the format, and our extra."""


class PluginMissingError(Exception):
    """A picture whose decoder is not installed; the text says what to install."""


def name_of(content: bytes) -> str:
    """The name of the picture's format as the first bytes tell it; nothing for what is not read."""
    return first_match(content, _PICTURES) or ("TGA" if _is_tga(content) else "")


def first_match(content: bytes, known: Mapping[str, bytes]) -> str:
    """The first name whose pattern the first bytes match; nothing without one."""
    head = content[:256]
    return next((name for name, begin in known.items() if re.match(begin, head, re.DOTALL)), "")


def opener(name: str) -> str:
    """Pillow's name of the decoder for a format.

    Raises:
        PluginMissingError: when it is not installed.
    """
    return _plugin(name) if name in _PLUGINS else _OPENERS.get(name, name)


@cache
def _plugin(name: str) -> str:
    """Pillow's name of a format whose plug-in is loaded here, once a process."""
    module, form, extra = _PLUGINS[name]
    try:
        plugin = import_module(module)
    except ImportError as error:
        message = f"it is a {name} file; pip install 'anymix[{extra}]' reads it"
        raise PluginMissingError(message) from error
    if name == "HEIC":  # the other registers itself
        plugin.register_heif_opener()
    return form


def _is_tga(content: bytes) -> bool:
    """Whether the bytes can be nothing but a TGA picture, which has no signature.

    Each field of the header must be one that writers give, and the file long enough for the size
    that it states.
    """
    if len(content) < 18:
        return False
    map_kind, kind = content[1], content[2]
    map_length = int.from_bytes(content[5:7], "little")
    width, height = (int.from_bytes(content[at : at + 2], "little") for at in (12, 14))
    depth, descriptor = content[16], content[17]
    if kind in {1, 9}:
        has_colours = map_kind == 1 and map_length > 0 and content[7] in {15, 16, 24, 32}
        allowed = {8}
    else:
        has_colours = map_kind == 0 and not any(content[3:8])
        allowed = {2: {16, 24, 32}, 10: {16, 24, 32}, 3: {8, 16}, 11: {8, 16}}.get(kind, set())
    if not has_colours or depth not in allowed or descriptor & 0xC0 or not width * height:
        return False
    if descriptor & 0x0F not in {0, 1, 8}:  # bits of alpha
        return False
    start = 18 + content[0] + map_length * ((content[7] + 7) // 8)
    size = depth // 8
    if kind < 8:
        return len(content) >= start + width * height * size
    return _tga_runs_fit(content, start, width * height, size)


def _tga_runs_fit(content: bytes, start: int, num_pixels: int, size: int) -> bool:
    """Whether run lengths from a position on give exactly so many pixels of `size` bytes."""
    while num_pixels > 0 and start < len(content):
        count = (content[start] & 0x7F) + 1
        start += 1 + size * (1 if content[start] & 0x80 else count)
        num_pixels -= count
    return num_pixels <= 0 and start <= len(content)


def jxl_size(content: bytes) -> tuple[int, int]:
    """Width and height in a JPEG XL file's header.

    The plug-in decodes the picture as it opens it, so a bomb must be known before that.
    Source: ISO/IEC 18181-1, section 9.2 (SizeHeader).

    Raises:
        EOFError: when the header breaks off.
    """
    if not content.startswith(b"\xff\x0a"):
        start = {b"jxlc": 0, b"jxlp": 4}  # a piece begins with its number
        boxes = [(kind, data) for kind, data in media_boxes(content) if kind in start]
        content = b"".join(data[start[kind] :] for kind, data in boxes)  # the first may be short
    if len(content) < 14:
        message = "its header breaks off"
        raise EOFError(message)
    bits = int.from_bytes(content[2:14], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    is_small = take(1)

    def side() -> int:
        return 8 * (1 + take(5)) if is_small else 1 + take((9, 13, 18, 30)[take(2)])

    height = side()
    ratio = take(3)
    if not ratio:
        return side(), height
    above, below = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * above // below, height
