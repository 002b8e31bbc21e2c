"""What a C2PA manifest says about training and data mining, read without a C2PA library.

A manifest is JUMBF: boxes in boxes, each described by a label, with CBOR or JSON inside (C2PA
Technical Specification 2.1, section 11; ISO/IEC 19566-5). Only the one assertion is looked for, in
whatever container it lies. The signature is not verified: a wish not to be mined is kept as it
stands, whoever wrote it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

from pipeline.containers import START_OF_SCAN, jpeg_segments

_LABELS = (b"c2pa.training-mining", b"cawg.training-mining")
_LABEL_OFFSET = 25  # size 4, type 4, UUID 16 and toggles 1 stand before the label in its box
_APP11 = 0xEB
_JUMBF_HEAD = 16  # JP 2, box number 2, counter 4 and the box's own head 8
_MAX_DEPTH = 16
_BREAK = object()

UNREADABLE = "unreadable"


def training_mining(content: bytes) -> dict[str, str]:
    """For each use that a training-and-data-mining assertion names, what it says of it.

    Source: C2PA Technical Specification 1.4, section 18.21; CAWG Training and Data Mining
    Assertion 1.1.

    Returns:
        such as `{"c2pa.ai_training": "notAllowed"}`; empty without an assertion, and
        `{UNREADABLE: "notAllowed"}` where there is one that cannot be read.
    """
    manifest = _join_app11(content) or content
    uses: dict[str, str] = {}
    for kind, payload in _assertions(manifest):
        try:
            assertion = json.loads(payload) if kind == b"json" else _cbor(payload, 0, 0)[0]
            entries = assertion["entries"].items()
            uses |= {str(name): str(entry["use"]) for name, entry in entries}
        except (ValueError, LookupError, TypeError, AttributeError, struct.error, OverflowError):
            uses[UNREADABLE] = "notAllowed"
    return uses


def _join_app11(content: bytes) -> bytes:
    """The JUMBF that a JPEG's APP11 segments hold in pieces; nothing for any other image."""
    joined = []
    for marker, segment, _ in jpeg_segments(content) if content.startswith(b"\xff\xd8") else ():
        if marker == START_OF_SCAN:
            break
        if marker == _APP11 and segment.startswith(b"JP"):
            # Every piece repeats the box's head; only the first one's is part of the box.
            is_first = int.from_bytes(segment[4:8], "big") == 1
            joined.append(segment[8:] if is_first else segment[_JUMBF_HEAD:])
    return b"".join(joined)


def _assertions(manifest: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of the box that follows each description with one of the labels."""
    for label in _LABELS:
        at = manifest.find(label)
        while at >= 0:
            start = at - _LABEL_OFFSET
            # The claim names the assertion too, by a URL; only a description box describes it.
            if start >= 0 and manifest[start + 4 : start + 8] == b"jumd":
                box = start + int.from_bytes(manifest[start : start + 4], "big")
                size = int.from_bytes(manifest[box : box + 4], "big")
                yield manifest[box + 4 : box + 8], manifest[box + 8 : box + size]
            at = manifest.find(label, at + 1)


def _cbor(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """The CBOR value at a position and where it ends (RFC 8949, section 3)."""
    if depth > _MAX_DEPTH:
        message = "CBOR is nested too deeply"
        raise ValueError(message)
    major, info = data[at] >> 5, data[at] & 31
    at += 1
    argument: int | None = info
    if info in {24, 25, 26, 27}:
        size = 1 << (info - 24)
        argument = int.from_bytes(data[at : at + size], "big")
        at += size
    elif info == 31:
        argument = None  # the length is not said; a break ends it
    if major in {2, 3}:
        return _cbor_string(data, at, major, argument, depth)
    if major in {4, 5}:
        items, at = _cbor_items(data, at, argument and argument * (major - 3), depth)
        return (dict(zip(items[::2], items[1::2], strict=True)) if major == 5 else items), at
    if major == 6:  # a tag says what the next value means
        return _cbor(data, at, depth + 1)
    if major == 7:
        return (_BREAK if info == 31 else {20: False, 21: True}.get(info)), at
    return (argument if major == 0 else -1 - (argument or 0)), at


def _cbor_string(
    data: bytes, at: int, major: int, length: int | None, depth: int
) -> tuple[str | bytes, int]:
    if length is None:
        pieces, at = _cbor_items(data, at, None, depth)
        return ("" if major == 3 else b"").join(pieces), at
    if at + length > len(data):
        message = "CBOR ends inside a string"
        raise ValueError(message)
    content = data[at : at + length]
    return (content.decode() if major == 3 else content), at + length


def _cbor_items(data: bytes, at: int, count: int | None, depth: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    while count is None or len(items) < count:
        item, at = _cbor(data, at, depth + 1)
        if item is _BREAK:
            break
        items.append(item)
    return items, at
