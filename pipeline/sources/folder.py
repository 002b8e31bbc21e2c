"""Your own pictures: a folder of images, each with its caption in a `.txt` file beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from pipeline.engine.fingerprint import fingerprint, hash_bytes
from pipeline.engine.parts import Part, SourceRecord, UnreadableRecord, cut
from pipeline.settings import RecipePath, Settings

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"}


class FolderSettings(Settings):
    """`kind: folder`: `cat.jpg` with its caption in `cat.txt`, at any depth."""

    kind: Literal["folder"]
    name: str = "folder"
    path: RecipePath
    """The folder, absolute or relative to the recipe."""
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


class FolderSource:
    """Pictures by their path below the folder."""

    def __init__(self, settings: FolderSettings) -> None:
        self._settings = settings

    def parts(self, rows_per_part: int, known: Mapping[str, Part]) -> Iterator[Part]:
        """Runs of file names, cut where the names say, named by the bytes that they hold."""
        keys = self._keys()
        for run in cut(keys, rows_per_part):
            members = keys[run]
            look = fingerprint(
                files=[self._look(key) for key in members],
                settings=self._settings.model_dump(mode="json"),
            )
            yield known[look] if look in known else self._part(members, look)

    def read(self, part: Part) -> Iterator[SourceRecord | UnreadableRecord]:
        """The pictures of one run, with their captions."""
        for key in self._keys():
            if part.slice["first"] <= key <= part.slice["last"]:
                yield self._record(key)

    def _keys(self) -> list[str]:
        root = self._settings.path
        return sorted(
            path.relative_to(root).as_posix()
            for path in root.rglob("*")
            if path.suffix.lower() in _SUFFIXES and path.is_file()
        )

    def _files(self, key: str) -> tuple[Path, Path]:
        image = self._settings.path / key
        return image, image.with_suffix(".txt")

    def _look(self, key: str) -> list[object]:
        look: list[object] = [key]
        for path in self._files(key):
            status = path.stat() if path.exists() else None
            look += [status.st_size, status.st_mtime_ns] if status else [None]
        return look

    def _part(self, members: list[str], look: str) -> Part:
        content, size = [], 0
        for key in members:
            image, caption = self._files(key)
            content.append([key, hash_bytes(image.read_bytes())])
            size += image.stat().st_size
            if caption.exists():
                content.append([caption.name, hash_bytes(caption.read_bytes())])
        settings = self._settings.model_dump(mode="json", exclude={"path"})
        slice_ = {
            "path": str(self._settings.path),
            "first": members[0],
            "last": members[-1],
            "content": fingerprint(files=content, settings=settings),
        }
        return Part.of(
            self._settings.name, slice_, num_records=len(members), size_bytes=size, look=look
        )

    def _record(self, key: str) -> SourceRecord | UnreadableRecord:
        image, caption = self._files(key)
        size = image.stat().st_size
        if size > self._settings.max_image_bytes:
            limit = self._settings.max_image_bytes
            detail = f"{size} bytes, allowed are {limit}"
            return UnreadableRecord(key=key, reason="ingest-image-too-large", detail=detail)
        if not caption.exists():
            detail = f"there is no {caption.name} beside the picture"
            return UnreadableRecord(key=key, reason="ingest-no-caption", detail=detail)
        return SourceRecord(
            key=key,
            caption=caption.read_text(encoding="utf-8", errors="replace").strip(),
            image=image.read_bytes(),
            licence=self._settings.licence,
            attribution=self._settings.attribution,
            origin=key,
        )
