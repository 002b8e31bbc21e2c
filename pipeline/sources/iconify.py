"""Icon sets in Iconify's JSON format, as the npm packages `@iconify-json/NAME` hold them.

A set draws thousands of named things in one style, under one licence, and many sets draw the same
things: a corpus of things times styles. `npm pack @iconify-json/twemoji` fetches one; it is read
packed or unpacked. The format: https://iconify.design/docs/types/iconify-json.html.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NoReturn
from xml.sax.saxutils import quoteattr

from pydantic import Field, field_validator

from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.parts import Part, SourceRecord, UnreadableRecord, cut
from pipeline.errors import UserError
from pipeline.settings import RecipePath, Settings
from pipeline.svg import Drawing, DrawingError

_SIDE = 16
"""An icon's side where neither it nor its set gives one: Iconify's default."""
_MAX_JSON_BYTES = 1 << 28
"""Ours: the largest set, of some 30,000 icons, has 60 MB."""
_ICONS, _INFO = "icons.json", "info.json"


class IconifySettings(Settings):
    """`kind: iconify`: the drawings of icon sets, each captioned with its name and its style."""

    kind: Literal["iconify"]
    name: str = "iconify"
    path: RecipePath
    """An icon set, or a folder with several: packages as `npm pack` writes them (`.tgz`), unpacked
    ones, or `.json` files in Iconify's format; absolute or relative to the recipe."""
    size: int = Field(default=64, ge=8, le=1024)
    """Longer side of the rendered picture in pixels."""
    captions: tuple[str, ...] = Field(
        default=("{name}, {style} style", "a {style} drawing of {name}", "{name} as in {style}"),
        min_length=1,
    )
    """Wordings of the caption. `{name}` is the icon's name in words, `{style}` the set's."""
    min_sets: int = Field(default=1, ge=1)
    """Take only names that at least so many of the sets draw."""
    exclude: tuple[str, ...] = ()
    """Names to leave out, as patterns: `flag-*`, `*-skin-tone*`."""
    limit: int | None = Field(default=None, ge=1)
    """Take only so many names, the first by the alphabet; null takes all."""

    @field_validator("path")
    @classmethod
    def _has_sets(cls, path: Path) -> Path:
        if not path.exists():
            message = f"there is no file or folder {path}"
            raise ValueError(message)
        if not _files(path):
            message = f"{path} holds no icon set: no {_ICONS}, no .tgz of npm and no .json"
            raise ValueError(message)
        return path

    @field_validator("captions")
    @classmethod
    def _names_the_thing(cls, captions: tuple[str, ...]) -> tuple[str, ...]:
        for caption in captions:
            try:
                named = caption.format(name="\0", style="")
            except (KeyError, IndexError, ValueError) as error:
                message = f"{caption!r}: only {{name}} and {{style}} can be filled in"
                raise ValueError(message) from error
            if "\0" not in named:
                message = f"{caption!r} has no {{name}}"
                raise ValueError(message)
        return captions


@dataclass(frozen=True, slots=True, kw_only=True)
class IconSet:
    """One icon set.

    Attributes:
        prefix: its short name, such as `twemoji`.
        icons: what the JSON says of each icon, by its name; hidden ones are left out.
        sides: width and height of icons that give none.
        licence: SPDX name.
        author: whom to name.
        url: where it is from.
    """

    prefix: str
    icons: Mapping[str, Mapping[str, Any]]
    sides: tuple[float, float]
    licence: str
    author: str
    url: str

    @property
    def style(self) -> str:
        """Its name in words: `Fluent Emoji Flat` for `fluent-emoji-flat`."""
        return self.prefix.replace("-", " ").title()


class IconifySource:
    """The icons of each set by their names."""

    def __init__(self, settings: IconifySettings) -> None:
        self._settings = settings

    def parts(self, rows_per_part: int, known: Mapping[str, Part]) -> Iterator[Part]:  # noqa: ARG002
        """Runs of names of each set, named by the drawings that they hold."""
        settings = self._settings
        files = _files(settings.path)
        sets = {name: _open(path) for name, path in files.items()}
        self._refuse_twins(sets)
        wanted = self._wanted(sets.values())
        decides = settings.model_dump(mode="json", include={"size", "captions"})
        for file, icon_set in sets.items():
            names = sorted(wanted & icon_set.icons.keys())
            for run in cut(names, rows_per_part):
                members = names[run]
                content = fingerprint(
                    icons={name: icon_set.icons[name] for name in members},
                    of=[
                        icon_set.prefix,
                        *icon_set.sides,
                        icon_set.licence,
                        icon_set.author,
                        icon_set.url,
                    ],
                    settings=decides,
                )
                slice_ = {"file": file, "names": members, "content": content}
                yield Part.of(settings.name, slice_, num_records=len(members))

    def read(self, part: Part) -> Iterator[SourceRecord | UnreadableRecord]:
        """The drawings of one run, on white."""
        icon_set = _open(_files(self._settings.path)[part.slice["file"]])
        for name in part.slice["names"]:
            yield self._record(icon_set, name)

    def _refuse_twins(self, sets: Mapping[str, IconSet]) -> None:
        first: dict[str, str] = {}
        for file, icon_set in sets.items():
            other = first.setdefault(icon_set.prefix, file)
            if other != file:
                raise UserError(
                    f"source {self._settings.name!r}: {self._settings.path} holds the set "
                    f"{icon_set.prefix!r} twice: {other} and {file}",
                    "Keep one of them.",
                )

    def _wanted(self, sets: Collection[IconSet]) -> set[str]:
        settings = self._settings
        counts = Counter(name for icon_set in sets for name in icon_set.icons)
        names = sorted(
            name
            for name, count in counts.items()
            if count >= settings.min_sets
            and not any(fnmatchcase(name, pattern) for pattern in settings.exclude)
        )
        if not names:
            raise UserError(
                f"source {settings.name!r}: no icon in {settings.path} is left by min_sets "
                f"{settings.min_sets} and exclude {list(settings.exclude)}",
                f"The sets are {', '.join(icon_set.prefix for icon_set in sets)}.",
            )
        return set(names[: settings.limit])

    def _record(self, icon_set: IconSet, name: str) -> SourceRecord | UnreadableRecord:
        key = f"{icon_set.prefix}/{name}"
        try:
            image = _render(icon_set, name, self._settings.size)
        except DrawingError as error:
            return UnreadableRecord(key=key, reason=error.reason, detail=str(error))
        words = {"name": name.replace("-", " "), "style": icon_set.style}
        caption, *more = (each.format(**words) for each in self._settings.captions)
        return SourceRecord(
            key=key,
            caption=caption,
            more_captions={f"wording-{number}": text for number, text in enumerate(more, 2)},
            image=image,
            licence=icon_set.licence,
            attribution=icon_set.author,
            origin=icon_set.url or key,
        )


def _files(path: Path) -> dict[str, Path]:
    """Each set's file by its name below the path, in order."""
    if path.is_file():
        return {path.name: path}
    found = [
        *path.rglob("*.tgz"),
        *path.rglob(_ICONS),
        *(each for each in path.glob("*.json") if each.name not in {_ICONS, _INFO}),
    ]
    return {each.relative_to(path).as_posix(): each for each in sorted(found)}


def _open(path: Path) -> IconSet:
    statuses = [each.stat() for each in (path, path.with_name(_INFO)) if each.exists()]
    return _parsed(path, tuple((each.st_size, each.st_mtime_ns) for each in statuses))


@lru_cache(maxsize=2)  # parts go from set to set, and a set may fill hundreds of megabytes
def _parsed(path: Path, _state: tuple[tuple[int, int], ...]) -> IconSet:
    """The set in a file; sizes and times tell whether it, or the notes next to it, have changed.

    Raises:
        UserError: when the file is no icon set.
    """
    try:
        icons, info = _read(path)
        info = {**info, **icons.get("info", {})}
        licence = info.get("license") or {}
        author = info.get("author") or {}
        return IconSet(
            prefix=str(icons["prefix"]),
            icons={
                str(name): icon
                for name, icon in icons["icons"].items()
                if isinstance(icon["body"], str) and not icon.get("hidden")
            },
            sides=(float(icons.get("width", _SIDE)), float(icons.get("height", _SIDE))),
            licence=str(licence.get("spdx") or licence.get("title") or "unknown"),
            author=str(author.get("name") or ""),
            url=str(author.get("url") or ""),
        )
    except (
        EOFError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        tarfile.TarError,
    ) as error:
        raise UserError(
            f"{path} is not an icon set in Iconify's JSON format: {type(error).__name__}: {error}",
            "Fetch one with `npm pack @iconify-json/NAME`.",
        ) from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a set's `icons.json` and `info.json` say."""
    if path.suffix == ".tgz":
        with tarfile.open(path, "r:gz") as tar:
            icons, info = (_member(tar, f"package/{name}") for name in (_ICONS, _INFO))
        return json.loads(icons or b""), json.loads(info or b"{}")
    info_file = path.with_name(_INFO)
    info_text = info_file.read_bytes() if path.name == _ICONS and info_file.exists() else b"{}"
    return json.loads(path.read_bytes()), json.loads(info_text)


def _member(tar: tarfile.TarFile, name: str) -> bytes | None:
    try:
        stream = tar.extractfile(name)
    except KeyError:
        return None
    content = stream.read(_MAX_JSON_BYTES + 1) if stream else b""
    if len(content) > _MAX_JSON_BYTES:
        raise ValueError(f"{name} has more than {_MAX_JSON_BYTES} bytes")
    return content


def _render(icon_set: IconSet, name: str, size: int) -> bytes:
    """An icon as an RGB PNG on white, its longer side `size` pixels.

    Raises:
        DrawingError: when it cannot be drawn.
    """
    icon = icon_set.icons[name]
    sides = dict(zip(("left", "top", "width", "height"), (0, 0, *icon_set.sides), strict=True))
    try:
        left, top, width, height = (float(icon.get(each, side)) for each, side in sides.items())
    except (TypeError, ValueError) as error:
        raise DrawingError(f"one of its {', '.join(sides)} is not a number") from error
    box = quoteattr(f"{left:g} {top:g} {width:g} {height:g}")
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox={box} width="{width:g}" height="{height:g}">{icon["body"]}</svg>'
    )
    buffer = io.BytesIO()
    Drawing(svg, _refuse_picture).render(longer_side=size).save(buffer, "PNG")
    return buffer.getvalue()


def _refuse_picture(_content: bytes) -> NoReturn:
    raise DrawingError("it holds a picture, and icons are drawings")
