"""SVG drawings, rendered without touching a file or the network.

resvg opens any local file that a drawing names, whatever `resources_dir` says. So the drawing is
parsed here, refused when it names anything outside itself, and what goes to resvg is written anew
from the parsed tree: two parsers cannot disagree about what it holds.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path

from PIL import Image

LONGER_SIDE = 512
"""Ours, in pixels: a drawing that says it is 24 or 100,000 wide is drawn like any other."""

_MARKUP = re.compile(rb"<!--.*?-->|<[!?][^>]*>", re.DOTALL)
_FIRST_ELEMENT = re.compile(rb"<(?:[\w.-]+:)?([A-Za-z][\w.-]*)")
_CSS_REFERENCE = re.compile(r"url\(\s*['\"]?\s*(?!#|data:)|@import", re.IGNORECASE)
_NUMBER = re.compile(
    r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*(px|pt|pc|mm|cm|in|em|ex)?\s*$", re.IGNORECASE
)


class ExternalReferenceError(ValueError):
    """A drawing that names something outside itself."""


def first_element(content: bytes) -> str:
    """The lower-case name of the first element of what looks like XML or HTML, else nothing."""
    head = content[:16_384].removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head.startswith(b"<"):
        return ""
    found = _FIRST_ELEMENT.search(_MARKUP.sub(b"", head))
    return found[1].decode("ascii").lower() if found else ""


class Drawing:
    """A parsed drawing that names nothing outside itself."""

    def __init__(self, content: bytes) -> None:
        """Parse a drawing.

        Raises:
            ExternalReferenceError: when it names a file or an address.
            ValueError: when it is no SVG (`xml.etree.ElementTree.ParseError` is one), or has no
                size.
        """
        self._root = ET.fromstring(content)  # noqa: S314 - expat 2.5 limits entities
        for element in self._root.iter():
            _refuse_references(element)
        self.width, self.height = _size(self._root)

    def render(self, *, longer_side: int = LONGER_SIDE) -> Image.Image:
        """The drawing on white, its longer side so many pixels.

        Raises:
            ValueError: when resvg cannot draw it.
        """
        import resvg_py

        scale = longer_side / max(self.width, self.height)
        try:
            content = resvg_py.svg_to_bytes(
                svg_string=ET.tostring(self._root, encoding="unicode"),
                width=max(1, round(self.width * scale)),
                height=max(1, round(self.height * scale)),
                background="#ffffff",
                # The machine's fonts would make another picture on another machine.
                skip_system_fonts=True,
                font_files=[str(_font())] if self._has_text() else None,
                font_family="DejaVu Sans",
                sans_serif_family="DejaVu Sans",
                serif_family="DejaVu Sans",
                monospace_family="DejaVu Sans",
            )
        except BaseException as error:
            # A panic of resvg's is no Exception; let through, it would take the worker with it.
            if isinstance(error, Exception) or type(error).__name__ == "PanicException":
                message = f"resvg cannot draw it: {error}"
                raise ValueError(message) from error
            raise
        with Image.open(io.BytesIO(bytes(content))) as image:
            return image.convert("RGB")

    def _has_text(self) -> bool:
        return any(_local(element.tag) == "text" for element in self._root.iter())


def _local(tag: object) -> str:
    """A tag's or attribute's name without its namespace; nothing for a comment."""
    return tag.rpartition("}")[2].lower() if isinstance(tag, str) else ""


def _refuse_references(element: ET.Element) -> None:
    for name, value in element.attrib.items():
        is_link = _local(element.tag) == "a"  # where a click leads; nothing is drawn from there
        target = value.strip()
        if _local(name) in {"href", "src"} and not is_link and target:
            if not target.startswith("#") and not target.lower().startswith("data:"):
                raise ExternalReferenceError(f"<{_local(element.tag)}> names {target[:80]!r}")
            # A drawing inside a drawing would be parsed by resvg alone.
            if target.lower().startswith("data:image/svg"):
                raise ExternalReferenceError(f"<{_local(element.tag)}> holds another drawing")
        if _CSS_REFERENCE.search(value):
            raise ExternalReferenceError(f"{_local(name)}={value[:80]!r} names a file")
    if _local(element.tag) == "style" and _CSS_REFERENCE.search(element.text or ""):
        raise ExternalReferenceError("its style sheet names a file")


def _size(root: ET.Element) -> tuple[float, float]:
    """Width and height as the root says them, in any unit: only their ratio is used."""
    if _local(root.tag) != "svg":
        message = f"its root is <{_local(root.tag)}>, not <svg>"
        raise ValueError(message)
    own = [_NUMBER.match(root.get(name, "")) for name in ("width", "height")]
    if own[0] and own[1] and own[0][2] == own[1][2]:
        width, height = float(own[0][1]), float(own[1][1])
    else:
        numbers = [
            _NUMBER.match(part) for part in re.split(r"[\s,]+", root.get("viewBox", "").strip())[2:]
        ]
        if len(numbers) != 2 or not (numbers[0] and numbers[1]):
            message = "it has neither width and height nor a viewBox"
            raise ValueError(message)
        width, height = float(numbers[0][1]), float(numbers[1][1])
    if width <= 0 or height <= 0:
        message = f"its size is {width:g} x {height:g}"
        raise ValueError(message)
    return width, height


@cache
def _font() -> Path:
    """The one font for the text of drawings: it comes with matplotlib, so it is pinned with it."""
    import matplotlib as mpl

    return Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
