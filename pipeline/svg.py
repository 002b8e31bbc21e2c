"""SVG drawings, rendered without touching a file or the network.

resvg opens any local file that a drawing names, whatever `resources_dir` says, and decodes pictures
of any size. So the drawing is parsed here, refused when it names anything outside itself, its
pictures are looked at, and what goes to resvg is written again from the parsed tree: two parsers
cannot disagree about what it holds.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import unquote_to_bytes

from PIL import Image

from pipeline.text_files import decode_text, encoding_of, undecodable

LONGER_SIDE = 512
"""Ours, in pixels: a drawing that says it is 24 or 100,000 wide is drawn like any other."""

MAX_UNPACKED = 16 << 20
"""Ours, in bytes: what a gzip-compressed drawing may unpack to."""

MAX_DEPTH = 100
"""Ours, in elements: with 300, resvg 0.2 overflows its stack, which ends the process."""

_MARKUP_BEGINS = {bytes([each]) for each in b"<\xef\xfe\xff\0 \t\r\n"}
"""Markup, a byte order mark, half of UTF-16's `<` or white space: nothing else is looked at."""

_MARKUP = re.compile(r"<!--.*?-->|<[!?][^>]*>", re.DOTALL)
_FIRST_ELEMENT = re.compile(r"<(?:[\w.-]+:)?([A-Za-z][\w.-]*)")
_DECLARED = re.compile(rb"\s*<\?xml[^>]*?\sencoding\s*=\s*[\"']([\w.:-]+)")
_CSS_REFERENCE = re.compile(r"url\(\s*+['\"]?+\s*+(?!#|data:)|@import", re.IGNORECASE)
_NUMBER = re.compile(
    r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*(px|pt|pc|mm|cm|in|em|ex)?\s*$", re.IGNORECASE
)

Embed = Callable[[bytes], tuple[str, bytes]]
"""Looks at the bytes of a picture in a drawing; gives format and bytes that resvg may decode."""


class DrawingError(ValueError):
    """A drawing that will not be used; `reason` is the reject code."""

    reason = "decode-svg-damaged"


class ExternalReferenceError(DrawingError):
    """A drawing that names something outside itself."""

    reason = "decode-svg-external-reference"


def markup_of(content: bytes) -> str | None:
    """The text of what begins as XML or HTML does, unpacked and decoded; None for other bytes.

    Raises:
        DrawingError: when a compressed drawing breaks off or unpacks to too much.
    """
    return _unpacked(content) if content.startswith(b"\x1f\x8b") else _plain_markup(content)


def first_element(text: str) -> str:
    """The lower-case name of the first element of XML or HTML, else nothing."""
    found = _FIRST_ELEMENT.search(_MARKUP.sub("", text[:65_536]))
    return found[1].lower() if found else ""


def _plain_markup(content: bytes) -> str | None:
    if content[:1] not in _MARKUP_BEGINS:
        return None
    encoding = encoding_of(content[:256])
    start = content[encoding.mark_size : 256].decode(encoding.codec, "replace").lstrip()
    return _decoded(content) if start.startswith("<") else None


def _unpacked(content: bytes) -> str | None:
    """The text of a gzip-compressed drawing; None for anything else that is compressed so."""
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        start = unpacker.decompress(content, 65_536)
        if first_element(_plain_markup(start) or "") != "svg":
            return None
        whole = start + unpacker.decompress(unpacker.unconsumed_tail, MAX_UNPACKED)
    except zlib.error:
        return None
    if unpacker.unconsumed_tail:
        message = f"the compressed drawing unpacks to more than {MAX_UNPACKED:,} bytes"
        raise DrawingError(message)
    if not unpacker.eof:
        message = f"the compressed drawing breaks off after {len(content)} bytes; fetch it again"
        raise DrawingError(message)
    return _decoded(whole)


def _decoded(content: bytes) -> str:
    """The text in the encoding that a byte order mark, the first bytes or the declaration tell."""
    declared = _DECLARED.match(content[:256])
    if declared and not encoding_of(content[:256]).repairs:
        name = declared[1].decode("ascii").lower()
        # Whoever declares UTF-16 in single bytes has converted the file and not the declaration.
        if not name.startswith(("utf-16", "utf-32", "ucs")):
            try:
                return content.decode(name)
            except (LookupError, UnicodeError):
                pass
    return decode_text(content).text


@contextmanager
def panics_raised() -> Iterator[None]:
    """Make an error of a panic of a library in Rust, which would take the worker with it."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise ValueError(str(error)) from error
        raise


class Drawing:
    """A parsed drawing that names nothing outside itself."""

    def __init__(self, text: str, embed: Embed) -> None:
        """Parse a drawing and look at the pictures in it.

        Raises:
            DrawingError: when it names a file or an address, is no SVG, or has no size.
        """
        if (at := undecodable(text)) is not None:
            message = f"character {at} is not UTF-8, and it declares no other encoding"
            raise DrawingError(message)
        try:
            self._root = ET.fromstring(text.lstrip())  # noqa: S314 - expat 2.5 limits entities
        except (ET.ParseError, UnicodeEncodeError) as error:
            message = f"its XML is damaged: {error}"
            raise DrawingError(message) from error
        for element in self._root.iter():
            _refuse_references(element, embed)
        _check_depth(self._root)
        self.width, self.height = _size(self._root)

    def render(self, *, longer_side: int = LONGER_SIDE) -> Image.Image:
        """The drawing on white, its longer side so many pixels.

        Raises:
            DrawingError: when resvg cannot draw it.
        """
        import resvg_py

        scale = longer_side / max(self.width, self.height)
        try:
            with panics_raised():
                content = resvg_py.svg_to_bytes(
                    svg_string=ET.tostring(self._root, encoding="unicode"),
                    width=max(1, round(self.width * scale)),
                    height=max(1, round(self.height * scale)),
                    background="#ffffff",
                    dpi=96,  # CSS's; with resvg_py's own, 0, a drawing in millimetres has no size
                    # The machine's fonts would make another picture on another machine.
                    skip_system_fonts=True,
                    font_files=[str(_font())] if self._has_text() else None,
                    font_family="DejaVu Sans",
                    sans_serif_family="DejaVu Sans",
                    serif_family="DejaVu Sans",
                    monospace_family="DejaVu Sans",
                )
        except Exception as error:  # a renderer's own types
            message = f"resvg cannot draw it: {error}"
            raise DrawingError(message) from error
        with Image.open(io.BytesIO(bytes(content))) as image:
            return image.convert("RGB")

    def _has_text(self) -> bool:
        return any(_local(element.tag) == "text" for element in self._root.iter())


def _local(tag: object) -> str:
    """A tag's or attribute's name without its namespace; nothing for a comment."""
    return tag.rpartition("}")[2].lower() if isinstance(tag, str) else ""


def _check_depth(root: ET.Element) -> None:
    """Raise a DrawingError for elements nested deeper than resvg's stack is."""
    named = {element.get("id"): element for element in root.iter()}
    heights: dict[ET.Element, int] = {}

    def height(element: ET.Element, left: int) -> int:
        if heights.get(element, 0) > left or left == 0:
            message = f"its elements are nested more than {MAX_DEPTH} deep"
            raise DrawingError(message)
        if element not in heights:
            heights[element] = 0  # of one that uses itself
            used = [value[1:] for name, value in element.attrib.items() if _local(name) == "href"]
            inner = [*element, *(named[each] for each in used if each in named)]
            heights[element] = 1 + max((height(each, left - 1) for each in inner), default=0)
        return heights[element]

    height(root, MAX_DEPTH)


def _refuse_references(element: ET.Element, embed: Embed) -> None:
    """Check everything that an element names; the pictures that it holds are written again."""
    tag = _local(element.tag)
    for name, value in list(element.attrib.items()):
        target = value.strip()
        # Where a click leads and what would run: nothing is drawn from there.
        is_drawn = tag not in {"a", "script"} and _local(name) in {"href", "src"}
        if is_drawn and target and not target.startswith("#"):
            if not target.lower().startswith("data:"):
                raise ExternalReferenceError(f"<{tag}> names {target[:80]!r}")
            element.set(name, _embedded(tag, target, embed))
        elif _CSS_REFERENCE.search(value):
            raise ExternalReferenceError(f"{_local(name)}={value[:80]!r} names a file")
    if tag == "style" and _CSS_REFERENCE.search(element.text or ""):
        raise ExternalReferenceError("its style sheet names a file")


def _embedded(tag: str, uri: str, embed: Embed) -> str:
    """A data URI of a picture that resvg may decode; nothing where the URI is empty."""
    kind, _, data = uri.partition(",")
    content = unquote_to_bytes(data)
    if kind.lower().rstrip().endswith(";base64"):
        try:
            content = base64.b64decode(content + b"=" * (-len(content) % 4))
        except binascii.Error as error:
            message = f"<{tag}> holds a picture whose base64 is damaged: {error}"
            raise DrawingError(message) from error
    if not content:
        return ""
    # A drawing inside a drawing would be parsed by resvg alone, whatever type the URI states.
    if markup_of(content) is not None:
        raise ExternalReferenceError(f"<{tag}> holds another drawing or page")
    form, picture = embed(content)
    return f"data:image/{form.lower()};base64,{base64.b64encode(picture).decode()}"


def _size(root: ET.Element) -> tuple[float, float]:
    """Width and height as the root says them, in any unit: only their ratio is used."""
    if _local(root.tag) != "svg":
        message = f"its root is <{_local(root.tag)}>, not <svg>"
        raise DrawingError(message)
    own = [_NUMBER.match(root.get(name, "")) for name in ("width", "height")]
    if own[0] and own[1] and own[0][2] == own[1][2]:
        width, height = float(own[0][1]), float(own[1][1])
        if root.get("viewBox") and own[0][2]:  # resvg would round millimetres to whole pixels
            root.set("width", own[0][1])
            root.set("height", own[1][1])
    else:
        numbers = [
            _NUMBER.match(part) for part in re.split(r"[\s,]+", root.get("viewBox", "").strip())[2:]
        ]
        if len(numbers) != 2 or not (numbers[0] and numbers[1]):
            message = "it has neither width and height nor a viewBox"
            raise DrawingError(message)
        width, height = float(numbers[0][1]), float(numbers[1][1])
    if width <= 0 or height <= 0:
        message = f"its size is {width:g} x {height:g}"
        raise DrawingError(message)
    return width, height


@cache
def _font() -> Path:
    """The one font for the text of drawings: it comes with matplotlib, so it is pinned with it."""
    import matplotlib as mpl

    return Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
