"""The streams of an Ogg file: libsndfile reads the first one and passes over what follows it.

Source: RFC 3533, section 6 (the page's header).
"""

from __future__ import annotations

from collections.abc import Iterator

_HEADER = 27
_BEGINS, _ENDS = 2, 4
"""Of a page's flags: it is the first, or the last, of its stream."""

_UNREAD = {
    b"\x7fFLAC": "FLAC in Ogg",
    b"Speex   ": "Speex",
    b"\x80theora": "Theora",
    b"fishead\0": "a film",
}
"""What the first page begins with, for codecs that libsndfile does not read in Ogg."""


def streams(content: bytes) -> list[bytes]:
    """The streams of an Ogg file that follow each other, as in a radio's recording."""
    starts, has_data = [0], False
    for at, flags, _ in _pages(content):
        if flags & _BEGINS and has_data:
            starts.append(at)
        has_data = not flags & _BEGINS
    return [content[at:end] for at, end in zip(starts, [*starts[1:], len(content)], strict=True)]


def unread_codec(content: bytes) -> str:
    """The codec of an Ogg file that is not read; nothing for others."""
    _, _, data = next(_pages(content), (0, 0, b""))
    return next((name for begin, name in _UNREAD.items() if data.startswith(begin)), "")


def lacks_its_end(content: bytes) -> bool:
    """Whether the last page is not whole, or not marked as the end of its stream."""
    page = content[content.rfind(b"OggS") :]
    num_segments = page[26] if len(page) > 26 else 0
    size = _HEADER + num_segments + sum(page[_HEADER : _HEADER + num_segments])
    return len(page) < size or not page[5] & _ENDS


def _pages(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Position, flags and data of each page; the last one may break off.

    A page whose length is damaged hides none that follow it: each begins with the same four bytes.
    """
    at = 0
    while at >= 0 and at + _HEADER <= len(content):
        start = at + _HEADER + content[at + 26]
        end = start + sum(content[at + _HEADER : start])
        yield at, content[at + 5], content[start:end]
        at = content.find(b"OggS", at + _HEADER)
