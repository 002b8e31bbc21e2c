"""Damage that lies outside the pixels of a picture, and the file without it.

Only for files that Pillow has refused as they are. What is left out or written again is what
viewers pass over. The pixels' own data are never touched: a picture that lacks some is not mended.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline.containers import START_OF_SCAN, jpeg_segments, png_chunks, riff_chunks
from pipeline.image_formats import name_of

LONG_METADATA = "long-metadata"
BROKEN_METADATA = "broken-metadata"
BROKEN_CONTAINER = "broken-container"
WITHOUT_END = "without-end"
WRONG_CHECKSUM = "wrong-checksum"
REPAIRS = {LONG_METADATA, BROKEN_METADATA, BROKEN_CONTAINER, WITHOUT_END, WRONG_CHECKSUM}

_MAX_PROFILE = 16 << 20
"""Bytes of an unpacked colour profile; ours: those of printers have up to about four million."""

_END_OF_IMAGE = b"\xff\xd9"


def _ending(bits: int) -> bytes:
    """Data that begin with three given bits, behind each restart marker, and the end of the image.

    Longer than any block, and without 0xFF, which begins a marker. A decoder that waits for a
    restart marker reads what is behind it, unless it meets one of the next two first: the even and
    the odd begin four markers apart.
    """
    data = bytes([bits << 5, *(1 + 73 * (bits + number) % 254 for number in range(4096))])
    restarts = (0xD0 + (4 * bits + number) % 8 for number in range(8))
    return b"".join(data + bytes([0xFF, each]) for each in restarts) + _END_OF_IMAGE


_ENDINGS = (_END_OF_IMAGE, *(_ending(bits) for bits in (5, 2, 0, 7, 4, 1, 6, 3)))
"""What is put in the place of bytes that a JPEG file lacks. Where all give the same pixels, no
pixel depends on those bytes: of 4,494 files that lacked some of their data, the second told 4,466
from whole ones, and the sixth the last two."""

_PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"eXIf")
"""What the pixels need, in the order that PNG asks for; a colour profile is read by itself."""

_EXIF, _ICC, _ALPHA, _ANIMATION = 0x08, 0x20, 0x10, 0x02
"""The flags of WebP's VP8X chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """A file without its damage.

    Attributes:
        contents: the bytes, once; the picture is whole where all of them decode to the same pixels.
        repairs: what was done.
        profile: the colour profile that the file has and `contents` have not.
    """

    contents: Iterable[bytes]
    repairs: tuple[str, ...]
    profile: bytes | None = None


def mend(content: bytes, error: Exception) -> Iterator[Mended]:
    """What can be tried with a file that Pillow has refused with an error, the likeliest first."""
    match name_of(content):
        case "JPEG":
            if "truncated" in str(error) and _has_all_scans(content):
                begun = content.removesuffix(b"\xff")  # the first half of the end's marker
                contents = (begun + ending for ending in _ENDINGS)  # one in memory at a time
                yield Mended(contents=contents, repairs=(WITHOUT_END,))
            yield _mend_jpeg(content)
        case "JPEG 2000":
            ended = content.removesuffix(b"\xff") + _END_OF_IMAGE
            yield Mended(contents=(ended,), repairs=(WITHOUT_END,))
        case "PNG":
            yield from _mend_png(content, is_long="too large" in str(error))
        case "WebP":
            yield from _mend_webp(content)
        case "TIFF":
            yield from _mend_tiff(content)
        case "AVIF":  # libavif takes no picture whose EXIF it cannot read, but passes over others
            other = re.sub(rb"(infe.{8})Exif", rb"\1skip", content, count=1, flags=re.DOTALL)
            yield Mended(contents=(other,), repairs=(BROKEN_METADATA,))


def png_repairs(content: bytes) -> tuple[str, ...]:
    """What Pillow passes over in a PNG that it decodes: wrong checksums of the data, no end.

    Raises:
        ValueError: when the data of the pixels are not those that were written.
    """
    chunks = list(png_chunks(content))
    whole = chunks if chunks[-1][0] == b"IEND" else chunks[:-1]  # the last one may break off
    is_wrong = any(
        zlib.crc32(kind + payload) != stated for kind, payload, stated in whole if kind == b"IDAT"
    )
    packed = b"".join(data for kind, data, _ in chunks if kind == b"IDAT")
    if is_wrong and not _is_intact(packed, chunks[0][1]):
        message = "the checksum of the pixels is wrong"
        raise ValueError(message)
    return (WRONG_CHECKSUM,) * is_wrong + (WITHOUT_END,) * (b"IEND" not in content)


def _mend_tiff(content: bytes) -> Iterator[Mended]:
    """The file without its further pages: Pillow gives the first when it has seen the second."""
    order: Literal["little", "big"] = "little" if content.startswith(b"II") else "big"
    is_big = 43 in content[2:4]
    # BigTIFF has longer offsets, counts and entries; the link to the next page follows them.
    size, count_size, entry_size = (8, 8, 20) if is_big else (4, 2, 12)
    at = int.from_bytes(content[size : 2 * size], order)
    count = int.from_bytes(content[at : at + count_size], order)
    at += count_size + entry_size * count
    if any(content[at : at + size]):
        first = content[:at] + bytes(size) + content[at + size :]
        yield Mended(contents=(first,), repairs=("first-page", BROKEN_CONTAINER))


def _has_all_scans(content: bytes) -> bool:
    """Whether each coefficient of each component is in a scan, down to its last bit."""
    lacking: dict[int, set[int]] = {}
    for marker, payload, _ in jpeg_segments(content):
        if marker & 0xF0 == 0xC0 and marker not in {0xC4, 0xC8, 0xCC}:
            lacking = {component: set(range(64)) for component in payload[6::3]}
        elif marker == START_OF_SCAN and len(payload) >= 4:
            first, last, bits = payload[-3:]
            if bits & 0x0F == 0:
                for component in payload[1:-3:2]:
                    lacking.get(component, set()).difference_update(range(first, last + 1))
    return bool(lacking) and not any(lacking.values())


def _mend_jpeg(content: bytes) -> Mended:
    """The file with no metadata but those that the colours and the orientation need."""
    kept = [content[:2]]
    for marker, payload, start in jpeg_segments(content):
        if marker == START_OF_SCAN:
            kept.append(content[start:])
            break
        is_needed = (
            not (0xE0 <= marker <= 0xEF or marker == 0xFE)
            or (payload.startswith(b"JFIF\0") and len(payload) >= 14)
            or (payload.startswith(b"Adobe") and len(payload) >= 12)
            or (payload.startswith(b"ICC_PROFILE\0") and len(payload) > 14)
            or payload.startswith(b"Exif\0\0")
        )
        if is_needed:
            kept.append(struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload)
    return Mended(contents=(b"".join(kept),), repairs=(BROKEN_METADATA,))


def _mend_png(content: bytes, *, is_long: bool) -> Iterator[Mended]:
    """The file with no chunks but those that the pixels need; libpng passes over damaged others."""
    chunks = list(png_chunks(content))
    wrong = {kind for kind, payload, stated in chunks if zlib.crc32(kind + payload) != stated}
    kind, header, _ = chunks[0] if chunks else (b"", b"", 0)
    if wrong & {b"IHDR", b"PLTE"} or kind != b"IHDR" or len(header) != 13:
        return  # no viewer shows it
    try:
        passed_over = png_repairs(content)
    except ValueError:
        return
    # Of two chunks of a kind, a viewer takes the first.
    right = {kind: payload for kind, payload, _ in reversed(chunks) if kind not in wrong}
    packed = b"".join(payload for kind, payload, _ in chunks if kind == b"IDAT")
    # Data whose chunks have the right checksums are as their writer meant them.
    data = packed if b"IDAT" in wrong else _with_true_checksum(packed, header)
    if not _fits(header, right.get(b"tRNS", b"")):
        right.pop(b"tRNS", None)
    repairs = [LONG_METADATA] * is_long
    repairs += [BROKEN_METADATA] * bool(wrong - {b"IDAT", b"IEND"})
    repairs += [WRONG_CHECKSUM] * (data != packed)
    repairs += passed_over
    kept = [_chunk(kind, right[kind]) for kind in _PNG_KEPT if kind in right]
    yield Mended(
        contents=(b"".join([content[:8], *kept, _chunk(b"IDAT", data), _chunk(b"IEND", b"")]),),
        repairs=tuple(repairs) or (BROKEN_METADATA,),
        profile=_unpacked_profile(right.get(b"iCCP", b"")),
    )


def _chunk(kind: bytes, payload: bytes) -> bytes:
    checksum = zlib.crc32(kind + payload)
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", checksum)


def _fits(header: bytes, transparency: bytes) -> bool:
    """Whether a PNG's tRNS has the length that the colour type in its header asks for."""
    lengths = {0: range(2, 3), 2: range(6, 7), 3: range(1, 257)}
    return len(transparency) in lengths.get(header[9], ())


def _unpacked_profile(payload: bytes) -> bytes | None:
    """The colour profile in a PNG's iCCP; None where it is damaged or too long."""
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(payload.partition(b"\0")[2][1:], _MAX_PROFILE)
    except zlib.error:
        return None
    return profile if unpacker.eof else None


def _most_data(header: bytes) -> int:
    """The most bytes that the pixels can have: 64 bits each, and a filter for each row."""
    width, height = struct.unpack(">II", header[:8])
    return int((8 * width + 16) * height + 64)


def _is_intact(packed: bytes, header: bytes) -> bool:
    """Whether a zlib stream is whole, its own checksum is right, and it fits the header."""
    unpacker = zlib.decompressobj()
    left = _most_data(header)
    try:
        while packed and not unpacker.eof and left >= 0:
            left -= len(unpacker.decompress(packed, 1 << 20))
            packed = unpacker.unconsumed_tail
    except zlib.error:
        return False
    return unpacker.eof


def _with_true_checksum(packed: bytes, header: bytes) -> bytes:
    """A zlib stream with the checksum that its data have.

    Unchanged where they break off, or are more than a picture of that size can have.
    """
    left = _most_data(header)
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    checksum, rest = zlib.adler32(b""), packed[2:]
    try:
        while not unpacker.eof:
            piece = unpacker.decompress(rest, 1 << 20)
            left -= len(piece)
            if left < 0 or (not piece and not unpacker.eof):
                return packed
            checksum, rest = zlib.adler32(piece, checksum), unpacker.unconsumed_tail
    except zlib.error:
        return packed
    return packed[: len(packed) - len(unpacker.unused_data)] + struct.pack(">I", checksum)


def _mend_webp(content: bytes) -> Iterator[Mended]:
    """The file of its whole chunks, its lengths written again."""
    wanted = (b"VP8X", b"ICCP", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L", b"EXIF")
    chunks = [(kind, data) for kind, data in riff_chunks(content) if kind in wanted]
    kinds = {kind for kind, _ in chunks}
    if not kinds & {b"VP8 ", b"VP8L", b"ANMF"}:
        return
    if chunks[0][0] == b"VP8X" and chunks[0][1]:
        flags = chunks[0][1][0] & (_ALPHA | _ANIMATION)
        flags |= _ICC * (b"ICCP" in kinds) | _EXIF * (b"EXIF" in kinds)
        chunks[0] = (b"VP8X", bytes([flags]) + chunks[0][1][1:])
    body = b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for kind, data in chunks
    )
    head = b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP"
    yield Mended(contents=(head + body,), repairs=(BROKEN_CONTAINER,))
