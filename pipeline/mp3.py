"""The length of an MP3 file that does not say it: libsndfile would guess it from the first frame.

Source: ISO/IEC 11172-3 and 13818-3, the header of a frame; for the tag, Xing's VBR header.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_KBIT_S = {
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Of layer III, by the version and a header's index; with index 0 a frame does not say its size."""
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
"""Hz, by a header's bits for the version: MPEG 1, 2 and 2.5."""
_TAGS = (b"Xing", b"Info", b"VBRI")


@dataclass(frozen=True, slots=True)
class _Frame:
    start: int
    size: int
    kind: bytes
    """What is the same in all frames of a stream: version and layer, and the sampling rate."""
    tag_at: int
    """Where in the frame the tag with the length would be: after the side information."""


def with_length(content: bytes) -> bytes:
    """An MP3 stream that begins with its number of frames: its own, or one that is counted here.

    Raises:
        ValueError: when it is several files one behind the other, of other channels each.
    """
    frames = [(each, content[each.start : each.start + each.size]) for each in _frames(content)]
    sounds = [data for _, data in frames if not any(tag in data for tag in _TAGS)]
    if not sounds or (len(frames) - len(sounds) == 1 and sounds[0] is not frames[0][1]):
        return content
    first = next(frame for frame, data in frames if data is sounds[0])
    if len(sounds) < len(frames):  # files one behind the other: each tag has the length of one
        if len({data[3] >> 6 == 3 for data in sounds}) > 1:
            message = "it changes its channels on the way"
            raise ValueError(message)
        content = b"".join(sounds)
    tag = b"Xing" + struct.pack(">II", 1, len(sounds))  # only the number of frames follows
    # No checksum: the bit that says so is set.
    header = bytes([0xFF, content[1] | 1]) + content[2:4]
    return (header.ljust(first.tag_at, b"\0") + tag).ljust(first.size, b"\0") + content


def _frames(content: bytes) -> Iterator[_Frame]:
    """The whole frames of layer III that are like the first; what is between them is skipped."""
    first: _Frame | None = None
    at = 0
    while at >= 0:
        found = _frame_at(content, at)
        if found is None or (first and found.kind != first.kind):
            if first is None:
                return
            at = content.find(b"\xff", at + 1)
            continue
        first = first or found
        yield found
        at += found.size


def _frame_at(content: bytes, at: int) -> _Frame | None:
    header = content[at : at + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version, bitrate, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version not in _RATES or bitrate in (0, 15) or rate == 3:
        return None
    is_first, is_mono = version == 3, header[3] >> 6 == 3
    bits = _KBIT_S[1 if is_first else 2][bitrate] * 1000 * (144 if is_first else 72)
    size = bits // _RATES[version][rate] + (header[2] >> 1 & 1)
    if at + size > len(content):
        return None
    side = (17 if is_mono else 32) if is_first else (9 if is_mono else 17)
    kind = bytes([header[1] & 0xFE, header[2] & 0x0C])
    return _Frame(at, size, kind, 4 + side)
