"""The pieces that JPEG, PNG, WebP and JPEG XL files are made of, found without a decoder."""

from __future__ import annotations

import re
from collections.abc import Iterator

_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
"""In a scan, 0xFF before a zero is data and the restart markers D0 to D7 belong to it."""
_WITHOUT_LENGTH = {0x01, 0xD8}

START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9


def jpeg_segments(content: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Marker, payload and position of each segment of a JPEG file, after SOI and up to EOI.

    A payload is without its length. The data of a scan are skipped.
    """
    at = 2
    while found := _JPEG_MARKER.search(content, at):
        marker, start, at = found[1][0], found.start(), found.end()
        if marker in _WITHOUT_LENGTH:
            continue
        if marker == _END_OF_IMAGE:
            return
        size = int.from_bytes(content[at : at + 2], "big")
        yield marker, content[at + 2 : at + size], start
        at += max(size, 2)


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Kind, payload and stated checksum of each chunk of a PNG file; IEND ends them.

    A last chunk that breaks off has what there is of it.
    """
    at = 8
    while at + 8 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        kind = content[at + 4 : at + 8]
        yield kind, content[at + 8 : end], int.from_bytes(content[end : end + 4], "big")
        if kind == b"IEND":
            return
        at = end + 4


def riff_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and payload of each whole chunk of a RIFF file, whatever size its header states."""
    at = 12
    while at + 8 <= len(content):
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        payload = content[at + 8 : at + 8 + size]
        if len(payload) < size:
            return
        yield content[at : at + 4], payload
        at += 8 + size + size % 2


def media_boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and payload of each box of an ISO media or JPEG XL file; the last one may break off."""
    at = 0
    while at + 8 <= len(content):
        size, head = int.from_bytes(content[at : at + 4], "big"), 8
        if size == 1:  # a 64-bit length follows
            size, head = int.from_bytes(content[at + 8 : at + 16], "big"), 16
        end = at + size if size else len(content)  # 0 is "to the end of the file"
        yield content[at + 4 : at + 8], content[at + head : end]
        at = max(end, at + 8)
