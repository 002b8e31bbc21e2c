"""From the bytes of a text file to text: the one place where an encoding is told.

Captions, metadata, tables, JSON, drawings, recipes and lists all come through here.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError

MAX_BYTES = 1_000_000_000
"""Ours: a list of ten million addresses is shorter."""

_MARKS = (
    # UTF-32's little-endian mark begins as UTF-16's does, so the longer ones come first.
    (codecs.BOM_UTF32_LE, "utf-32-le", "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32-be", "utf-32"),
    (codecs.BOM_UTF8, "utf-8", "byte-order-mark"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "utf-16"),
)
_KEPT = re.compile("[\udc80-\udcff]")
NUM_LOOKED_AT = 256
"""Bytes that tell UTF-16 without a mark."""

KEEP = "anymix-keep"
"""The error handler for text files: what an encoding does not know is kept as lone surrogates."""


def _keep(error: UnicodeError) -> tuple[str | bytes, int]:
    """Broken UTF-8 by byte, a broken unit of UTF-16 as it is, and else the replacement character.

    It encodes again to the same bytes, except for the last, such as half a unit at the end.
    """
    is_utf8 = (
        isinstance(error, UnicodeDecodeError | UnicodeEncodeError) and error.encoding == "utf-8"
    )
    name = "surrogateescape" if is_utf8 else "surrogatepass"
    try:
        return codecs.lookup_error(name)(error)
    except (UnicodeDecodeError, UnicodeEncodeError) as unknown:
        return "\ufffd", unknown.end


codecs.register_error(KEEP, _keep)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How a text file is written.

    Attributes:
        codec: Python's name of it, without a byte order mark.
        mark_size: how many bytes the mark has; 0 without one.
        repairs: what a record's `repairs` say of it; nothing for plain UTF-8.
    """

    codec: str
    mark_size: int
    repairs: tuple[str, ...]


def encoding_of(start: bytes) -> Encoding:
    """The encoding of a file by its first bytes (256 tell all there is to tell).

    A byte order mark decides. Without one the text is UTF-16 where most of every second byte is NUL
    and none of the others, which no text in UTF-8 has, and else UTF-8: a guess at an eight-bit
    encoding would be wrong for some language.
    """
    for mark, codec, repair in _MARKS:
        if start.startswith(mark):
            return Encoding(codec=codec, mark_size=len(mark), repairs=(repair,))
    start = start[: min(len(start), NUM_LOOKED_AT) // 2 * 2]
    even, odd = start[0::2], start[1::2]
    if all(even) and 2 * odd.count(0) > len(odd):
        return Encoding(codec="utf-16-le", mark_size=0, repairs=("utf-16",))
    if all(odd) and 2 * even.count(0) > len(even):
        return Encoding(codec="utf-16-be", mark_size=0, repairs=("utf-16",))
    return Encoding(codec="utf-8", mark_size=0, repairs=())


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedText:
    r"""The text of a file.

    Attributes:
        text: with `\n` at the end of each line. Bytes that the encoding does not know are lone
            surrogates (`surrogateescape`), so that the rest can be used; `undecodable` finds them.
        repairs: what a record's `repairs` say of its encoding.
    """

    text: str
    repairs: tuple[str, ...]


def decode_text(raw: bytes) -> DecodedText:
    """The text of a whole file: byte order mark, UTF-16 and line ends are handled, nothing else."""
    encoding = encoding_of(raw[:NUM_LOOKED_AT])
    text = raw[encoding.mark_size :].decode(encoding.codec, KEEP)
    return DecodedText(text=with_plain_line_ends(text), repairs=encoding.repairs)


def with_plain_line_ends(text: str) -> str:
    r"""The text with `\n` where a line ends in `\r\n` or `\r`."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def undecodable(text: str) -> int | None:
    """Where the text has the first byte that its encoding does not know; None where it has none."""
    found = _KEPT.search(text)
    return found and found.start()


def read_text(path: Path, *, max_bytes: int = MAX_BYTES) -> str:
    """The text of a file that a person has written for us: a recipe, a list.

    Raises:
        UserError: when there is no such file, when it is not text, or when it is too long.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(max_bytes + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(raw) > max_bytes:
        raise UserError(f"{path} has over {max_bytes:,} bytes: it is not such a file")
    text = decode_text(raw).text
    wrong = undecodable(text)
    if wrong is not None:
        line = text.count("\n", 0, wrong) + 1
        byte = ord(text[wrong]) - 0xDC00
        raise UserError(
            f"{path}:{line}: the byte 0x{byte:02x} is not UTF-8",
            "Save the file as UTF-8 (or UTF-16): an editor offers that when it saves.",
        )
    return text
