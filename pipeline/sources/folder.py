"""Your own pictures or sounds: a folder, with captions next to them or in metadata files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from pipeline.engine.fingerprint import fingerprint, hash_bytes
from pipeline.engine.parts import Part, SourceRecord, UnreadableRecord, cut
from pipeline.errors import UserError
from pipeline.settings import RecipePath, Settings
from pipeline.sources import folder_metadata
from pipeline.sources.captions import Captions, captions_of, named_captions
from pipeline.sources.columns import NUM_FIRST_ROWS, check_columns
from pipeline.sources.endings import CAPTIONS, SOUNDS, Unread, pictures
from pipeline.sources.files import Problem, read_file
from pipeline.sources.folder_captions import (
    Sidecar,
    fingerprints,
    no_caption,
    read_sidecars,
    sidecar_captions,
    sidecar_notes,
)
from pipeline.sources.folder_walk import METADATA, Listed, Walk, look_at
from pipeline.sources.known_names import provenance_of
from pipeline.sources.spans import columns_of


class FolderSettings(Settings):
    """`kind: folder`: `cat.jpg` with its caption in `cat.txt`, `.caption` or `.json`, at any depth.

    Or with a row in `metadata.csv`, `.jsonl` or `.parquet` in its folder or one above, whose column
    `file_name` is the picture's path below that folder, as in `datasets`' ImageFolder.
    """

    kind: Literal["folder"]
    name: str = "folder"
    path: RecipePath
    """The folder, absolute or relative to the recipe."""
    caption_extensions: tuple[str, ...] = Field(
        default=CAPTIONS, min_length=1, exclude_if=lambda value: value == CAPTIONS
    )
    """Endings of caption files; the first that is there counts. `.json` holds fields, any other
    text. A `.json` next to another caption file says the licence, the author and the URL."""
    caption_columns: tuple[str, ...] | None = None
    """Columns of the metadata or keys of a `.json`: the first with a text is the caption, the
    others are further captions. Null takes those that are captions by their names."""
    licence: str = "unknown"
    """SPDX name of the licence, for pictures whose metadata or `.json` names none."""
    attribution: str = ""
    """Whom to name, for pictures whose metadata or `.json` names nobody."""
    max_image_bytes: int = Field(default=50_000_000, ge=1)
    """A larger file is rejected unread, in bytes."""

    @field_validator("path")
    @classmethod
    def _is_a_folder(cls, path: Path) -> Path:
        if not path.is_dir():
            message = f"there is no folder {path}"
            raise ValueError(message)
        return path

    @field_validator("caption_extensions")
    @classmethod
    def _are_endings(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        endings = tuple(f".{name.strip().lower().removeprefix('.')}" for name in names)
        for ending in endings:
            if not ending[1:] or set(ending[1:]) & set("./ "):
                message = f"{ending!r} is not the end of a file's name; write one as `.txt`"
                raise ValueError(message)
        return endings


class SoundsSettings(FolderSettings):
    """`kind: sounds`: sounds in files, with captions as a folder of pictures has them."""

    kind: Literal["sounds"]  # type: ignore[assignment]
    name: str = "sounds"


class FolderSource:
    """Pictures, or sounds, by their path below the folder."""

    def __init__(self, settings: FolderSettings) -> None:
        self._settings = settings
        self._has_sounds = isinstance(settings, SoundsSettings)
        self.unread = Unread()

    def parts(self, rows_per_part: int, known: Mapping[str, Part]) -> Iterator[Part]:
        """Runs of file names, cut where the names say, named by the bytes that they hold."""
        listed, metadata = self._list()
        keys = sorted(listed)
        settings = self._settings.model_dump(mode="json", exclude={"path"})
        own = [part for part in known.values() if part.source == self._settings.name]
        by_content = {_content(part.slice): part.name for part in own}
        is_checked = False
        for run in cut(keys, rows_per_part):
            members = {key: listed[key] for key in keys[run]}
            looks = [[key, *each.state] for key, each in members.items()]
            look = fingerprint(files=looks, settings=settings)
            if look in known:
                content = dict(zip(_CONTENT, _content(known[look].slice), strict=True))
                yield replace(known[look], slice={**content, **_members(members)})
                continue
            if not is_checked:
                self._check(listed, metadata)
                is_checked = True
            part = self._part(members, look, settings)
            # The same content under another name is an earlier version's, which named the path.
            name = by_content.get(_content(part.slice), part.name)
            yield replace(part, name=name, slice={**part.slice, **_members(members)})

    def read(self, part: Part) -> Iterator[SourceRecord | UnreadableRecord]:
        """The pictures of one run, with their captions."""
        slice_ = part.slice
        if "files" not in slice_:  # an earlier version's, of a corpus that is not filled by a run
            listed = self._list()[0]
            held = {k: v for k, v in listed.items() if slice_["first"] <= k <= slice_["last"]}
            slice_ = _members(held)
        rows = dict(self._rows(slice_["rows"]))
        for key in sorted([*slice_["files"], *slice_["problems"]]):
            if key in slice_["problems"]:
                reason, detail = slice_["problems"][key]
                yield UnreadableRecord(key=key, reason=reason, detail=detail)
            else:
                yield self._record(key, slice_["files"][key].split(), rows.get(key))

    def _list(self) -> tuple[dict[str, Listed], list[str]]:
        """What the folder and its metadata list, by key, and the metadata files."""
        root, columns = self._settings.path, self._settings.caption_columns
        walk = Walk(
            endings=SOUNDS if self._has_sounds else pictures(),
            captions=self._settings.caption_extensions,
        )
        listed = dict(walk.files(root))
        for key, row, has_captions in folder_metadata.read_metadata(root, walk.metadata, columns):
            if isinstance(row, Problem):
                listed[key] = Listed(problem=row)
                continue
            if key not in listed:
                listed[key] = look_at(root / key)
                if listed[key].problem is None:
                    walk.unread.take_back(key)
            elif has_captions and listed[key].sidecars:
                walk.unread.note(f"a{listed[key].sidecars[0]}", "next to a row of metadata")
            listed[key] = replace(listed[key], row=row)
        self.unread = walk.unread
        return listed, walk.metadata

    def _rows(self, places: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, Any]]:
        for file, own in places.items():
            by_place = {place: key for key, place in own.items()}
            yield from folder_metadata.read_places(self._settings.path, file, by_place)

    def _check(self, listed: Mapping[str, Listed], metadata: Collection[str]) -> None:
        """See that what the recipe names is there.

        Raises:
            UserError: naming what is missing and what is there.
        """
        root, settings = self._settings.path, self._settings
        sidecars = [(key, each.sidecars) for key, each in listed.items() if each.sidecars]
        if settings.caption_extensions != CAPTIONS and listed and not sidecars:
            raise UserError(
                f"source {settings.name!r}: no file in {root} has a caption file next to it that"
                f" ends in {' or '.join(settings.caption_extensions)} (caption_extensions)",
                f"Not read are: {', '.join(sorted(self.unread)) or 'no other files'}.",
            )
        if settings.caption_columns is not None:
            of_json = (
                list(sidecar_notes(read_sidecars(root / key, endings)))
                for key, endings in islice(sidecars, NUM_FIRST_ROWS)
            )
            of_metadata = (columns_of(root / file) for file in metadata)
            needed = [(name,) for name in settings.caption_columns]
            check_columns(
                settings.name,
                needed,
                (n for found in (of_metadata, of_json) for n in found),
                where=str(root),
            )

    def _part(self, members: Mapping[str, Listed], look: str, settings: Mapping[str, Any]) -> Part:
        contents, size, is_readable = [], 0, True
        for key, listed in members.items():
            image = self._settings.path / key
            content = listed.problem or read_file(image, self._settings.max_image_bytes)
            if isinstance(content, Problem):
                contents.append([key, content.reason])
                is_readable &= content.reason != "ingest-file-unreadable"
            else:
                row = listed.row.fingerprint if listed.row else folder_metadata.NO_ROW
                sidecars = read_sidecars(image, listed.sidecars)
                contents.append([key, hash_bytes(content), row, *fingerprints(sidecars)])
                size += len(content)
        slice_ = {
            "first": min(members),
            "last": max(members),
            "content": fingerprint(files=contents, settings=settings),
        }
        # Without a look where a file was forbidden: a changed permission shows in no time or size.
        return Part.of(
            self._settings.name,
            slice_,
            num_records=len(members),
            size_bytes=size,
            look=look if is_readable else "",
        )

    def _record(
        self, key: str, endings: Sequence[str], row: Mapping[str, Any] | Problem | None
    ) -> SourceRecord | UnreadableRecord:
        image = self._settings.path / key
        content = read_file(image, self._settings.max_image_bytes)
        if isinstance(content, Problem):
            return UnreadableRecord(key=key, **asdict(content))
        sidecars = read_sidecars(image, endings)
        captions = row if isinstance(row, Problem) else self._captions(key, sidecars, row)
        if isinstance(captions, Problem):
            return UnreadableRecord(key=key, **asdict(captions))
        return SourceRecord(
            key=key,
            caption=captions.caption,
            more_captions=captions.more,
            image=None if self._has_sounds else content,
            image_ref=None if self._has_sounds else image.as_posix(),
            sound=content if self._has_sounds else None,
            **provenance_of(
                {**sidecar_notes(sidecars), **(row if isinstance(row, Mapping) else {})},
                licence=self._settings.licence,
                attribution=self._settings.attribution,
                origin=key,
            ),
        )

    def _captions(
        self, key: str, sidecars: Sequence[Sidecar], row: Mapping[str, Any] | None
    ) -> Captions | Problem:
        columns = self._settings.caption_columns
        if row is not None and (not sidecars or folder_metadata.caption_columns_of(row, columns)):
            return named_captions(row) if columns is None else captions_of(row, columns)
        if sidecars:
            return sidecar_captions(sidecars[0], columns)
        there = [(each / name).as_posix() for each in Path(key).parents for name in METADATA]
        metadata = [each for each in there if (self._settings.path / each).exists()]
        return no_caption(Path(key), self._settings.caption_extensions, metadata)


_CONTENT = ("first", "last", "content")
"""What names a part; the rest of its slice says how to read it."""


def _content(slice_: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(slice_.get(name) for name in _CONTENT)


def _members(members: Mapping[str, Listed]) -> dict[str, Any]:
    """How to read a run of files without listing the folder again.

    Returns:
        `files`: the endings of the files next to each, as `Listed.sidecars`, `rows`: for each
        metadata file the places of their rows, and `problems`: why some cannot be read.
    """
    rows: dict[str, dict[str, int]] = {}
    for key, listed in members.items():
        if listed.row is not None:
            rows.setdefault(listed.row.file, {})[key] = listed.row.place
    problems = {key: each.problem for key, each in members.items() if each.problem}
    return {
        "files": {k: " ".join(each.sidecars) for k, each in members.items() if k not in problems},
        "rows": rows,
        "problems": {key: [each.reason, each.detail] for key, each in problems.items()},
    }
