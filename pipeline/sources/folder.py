"""Your own pictures or sounds: a folder, with captions beside them or in one metadata file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from pipeline.engine.fingerprint import fingerprint, hash_bytes
from pipeline.engine.parts import Part, SourceRecord, UnreadableRecord, cut
from pipeline.settings import RecipePath, Settings
from pipeline.sources import folder_captions
from pipeline.sources.captions import Captions, captions_of
from pipeline.sources.files import Problem, read_file
from pipeline.sources.folder_walk import PICTURES, SOUNDS, Listed, Range, look_at, walk


class FolderSettings(Settings):
    """`kind: folder`: `cat.jpg` with its caption in `cat.txt` or `cat.json`, at any depth.

    Or with a row in `metadata.csv`, `metadata.jsonl` or `metadata.parquet` at the top, whose column
    `file_name` is the picture's path below the folder, as in `datasets`' ImageFolder.
    """

    kind: Literal["folder"]
    name: str = "folder"
    path: RecipePath
    """The folder, absolute or relative to the recipe."""
    caption_columns: tuple[str, ...] | None = None
    """Columns of the metadata or keys of a `.json`: the first with a text is the caption, the
    others are further captions. Null takes `caption` or `text` first, then the other texts."""
    licence: str = "unknown"
    """SPDX name of the pictures' licence, kept on every record."""
    attribution: str = ""
    """Whom to name when a picture is used."""
    max_image_bytes: int = Field(default=50_000_000, ge=1)
    """A larger file is rejected unread, in bytes."""

    @field_validator("path")
    @classmethod
    def _is_a_folder(cls, path: Path) -> Path:
        if not path.is_dir():
            message = f"there is no folder {path}"
            raise ValueError(message)
        return path


class SoundsSettings(FolderSettings):
    """`kind: sounds`: WAV files of 16-bit PCM, with captions as a folder of pictures has them."""

    kind: Literal["sounds"]  # type: ignore[assignment]
    name: str = "sounds"


class FolderSource:
    """Pictures, or sounds, by their path below the folder."""

    def __init__(self, settings: FolderSettings) -> None:
        self._settings = settings
        self._has_sounds = isinstance(settings, SoundsSettings)

    def parts(self, rows_per_part: int, known: Mapping[str, Part]) -> Iterator[Part]:
        """Runs of file names, cut where the names say, named by the bytes that they hold."""
        listed = self._listed(Range())
        keys = sorted(listed)
        settings = self._settings.model_dump(mode="json")
        for run in cut(keys, rows_per_part):
            members = {key: listed[key] for key in keys[run]}
            looks = [[key, each.fingerprint] for key, each in members.items()]
            look = fingerprint(files=looks, settings=settings)
            yield known[look] if look in known else self._part(members, look)

    def read(self, part: Part) -> Iterator[SourceRecord | UnreadableRecord]:
        """The pictures of one run, with their captions."""
        wanted = Range(first=part.slice["first"], last=part.slice["last"])
        for key, listed in sorted(self._listed(wanted).items()):
            yield self._record(key, listed)

    def _listed(self, wanted: Range) -> dict[str, Listed]:
        """What the folder and its metadata list in a range, by key."""
        root = self._settings.path
        listed = dict(walk(root, wanted, SOUNDS if self._has_sounds else PICTURES))
        columns = self._settings.caption_columns
        for key, row in folder_captions.read_metadata(root, columns):
            if wanted.holds(key):
                if isinstance(row, Problem):
                    listed[key] = Listed(problem=row)
                else:
                    listed[key] = replace(listed.get(key) or look_at(root / key), metadata=row)
        return listed

    def _part(self, members: Mapping[str, Listed], look: str) -> Part:
        contents, size, is_readable = [], 0, True
        for key, listed in members.items():
            content = self._read(key, listed)
            if isinstance(content, Problem):
                contents.append([key, content.reason])
                is_readable &= content.reason != "ingest-file-unreadable"
            else:
                beside = folder_captions.read_beside(self._settings.path / key)
                row = replace(listed, look="").fingerprint
                contents.append([key, hash_bytes(content), row, *beside.fingerprint])
                size += len(content)
        settings = self._settings.model_dump(mode="json", exclude={"path"})
        slice_ = {
            "path": str(self._settings.path),
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

    def _read(self, key: str, listed: Listed) -> bytes | Problem:
        if listed.problem is not None:
            return listed.problem
        return read_file(self._settings.path / key, self._settings.max_image_bytes)

    def _record(self, key: str, listed: Listed) -> SourceRecord | UnreadableRecord:
        content = self._read(key, listed)
        if isinstance(content, Problem):
            return UnreadableRecord(key=key, reason=content.reason, detail=content.detail)
        captions: Captions | Problem
        if listed.metadata is not None:
            captions = captions_of(listed.metadata, list(listed.metadata))
        else:
            beside = folder_captions.read_beside(self._settings.path / key)
            captions = folder_captions.of_beside(beside, self._settings.caption_columns)
        if isinstance(captions, Problem):
            return UnreadableRecord(key=key, reason=captions.reason, detail=captions.detail)
        return SourceRecord(
            key=key,
            caption=captions.caption,
            more_captions=captions.more,
            image=None if self._has_sounds else content,
            image_ref=None if self._has_sounds else (self._settings.path / key).as_posix(),
            sound=content if self._has_sounds else None,
            licence=self._settings.licence,
            attribution=self._settings.attribution,
            origin=key,
        )
