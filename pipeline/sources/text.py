"""Text alone: plain text files, or the text column of JSON lines, Parquet, CSV or TSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from pipeline.engine.fingerprint import fingerprint, hash_bytes
from pipeline.engine.parts import Part, SourceRecord, UnreadableRecord, cut
from pipeline.errors import UserError
from pipeline.sources.captions import captions_of, named_captions
from pipeline.sources.columns import CAPTIONS
from pipeline.sources.files import Problem, as_text, plain, read_file
from pipeline.sources.image_cells import ImageCell
from pipeline.sources.known_names import caption_columns
from pipeline.sources.lines import format_of
from pipeline.sources.row_files import (
    Place,
    RowFiles,
    RowFileSettings,
    matches,
    own_key,
    provenance,
    split_glob,
)
from pipeline.sources.spans import Row
from pipeline.sources.unpacking import unpacked


class TextSourceSettings(RowFileSettings):
    """`kind: text`: prose without pictures."""

    kind: Literal["text"]
    name: str = "text"
    text_column: str = "text"
    """The column of the text, where the files have columns."""
    per: Literal["file", "paragraph"] = "file"
    """What a record is in a `.txt` file: all of it, or each paragraph (blank lines part them)."""
    max_file_bytes: int = Field(default=50_000_000, ge=1)
    """A larger `.txt` file is rejected unread with `per: file`, in bytes."""


class TextSource:
    """Rows of text as `RowFiles` gives them; with `per: file` a `.txt` file is one record."""

    def __init__(self, settings: TextSourceSettings) -> None:
        self._settings = settings
        self._folder, self._pattern = split_glob(settings.path)
        self._decides = settings.model_dump(mode="json", exclude={"path"})

    def parts(self, rows_per_part: int, known: Mapping[str, Part]) -> Iterator[Part]:
        """Runs of files, cut where their names say, named by the texts that they hold."""
        keys = self._keys()
        for run in cut(keys, rows_per_part):
            members = keys[run]
            look = fingerprint(files=[self._look(key) for key in members], settings=self._decides)
            yield known[look] if look in known else self._part(members, look)

    def read(self, part: Part) -> Iterator[SourceRecord | UnreadableRecord]:
        """The texts of one run."""
        slice_ = part.slice
        if "files" in slice_:
            keys = slice_["files"]
        else:  # a part of an earlier version
            keys = [key for key in self._keys() if slice_["first"] <= key <= slice_["last"]]
        for key in keys:
            yield self._record(key)

    def _keys(self) -> list[str]:
        if self._pattern is None:
            return [self._settings.path.name]
        found = matches(self._folder, self._pattern)
        keys = sorted(plain(path.relative_to(self._folder).as_posix()) for path in found)
        if not keys:
            raise UserError(f"no file matches {self._settings.path}")
        return keys

    def _look(self, key: str) -> list[Any]:
        try:
            status = (self._folder / key).stat()
        except OSError as error:
            return [key, error.errno]
        return [key, status.st_size, status.st_mtime_ns]

    def _part(self, members: list[str], look: str) -> Part:
        contents, size, is_whole = [], 0, True
        for key in members:
            content = read_file(self._folder / key, self._settings.max_file_bytes)
            if isinstance(content, Problem):
                contents.append([plain(key), content.reason])
                is_whole &= content.reason != "ingest-file-unreadable"
            else:
                contents.append([plain(key), hash_bytes(content)])
                size += len(content)
        slice_ = {
            "files": members,
            "content": fingerprint(files=contents, settings=self._decides),
        }
        # Without a look where a file was forbidden: a changed permission shows in no time or size.
        return Part.of(
            self._settings.name,
            slice_,
            num_records=len(members),
            size_bytes=size,
            look=look if is_whole else "",
        )

    def _record(self, key: str) -> SourceRecord | UnreadableRecord:
        content = read_file(self._folder / key, self._settings.max_file_bytes)
        if isinstance(content, Problem):
            reason = content.reason.replace("-image-", "-file-")
            return UnreadableRecord(key=plain(key), reason=reason, detail=content.detail)
        content = unpacked(content, self._folder / key, self._settings.max_file_bytes)
        if isinstance(content, Problem):
            return UnreadableRecord(key=plain(key), reason=content.reason, detail=content.detail)
        text = as_text(content)
        return SourceRecord(
            key=plain(key),
            caption=text.strip() if isinstance(text, str) else text,
            image=None,
            **provenance({}, self._settings, plain(key)),
        )


class Texts:
    """A row is a text; a source with pictures says which image it is about.

    Args:
        settings: what all sources of rows have in common.
        text_columns: those that the recipe names; None takes captions by their names.
    """

    def __init__(self, settings: RowFileSettings, text_columns: Sequence[str] | None) -> None:
        self._settings = settings
        self._texts = text_columns
        self.listed = [settings.key_column] if settings.key_column else []
        texts = [CAPTIONS] if text_columns is None else [(name,) for name in text_columns]
        self.needed: list[Sequence[str]] = [*texts, *((name,) for name in settings.columns())]

    def columns(self, there: Sequence[str]) -> list[str]:
        """What reading a row needs of the columns that a file has."""
        texts = caption_columns(there) if self._texts is None else self._texts
        return [*texts, *self._settings.columns_among(there)]

    def key(self, row: Row) -> str | None:
        """The row's own key, where a column has keys."""
        return own_key(row, self._settings.key_column)

    def num_records(self, row: Row) -> int:  # noqa: ARG002
        """Always one."""
        return 1

    def image(self, row: Row, place: Place) -> ImageCell | Problem | None:  # noqa: ARG002
        """The image that the text is about, None without one, or why it cannot be given."""
        return None

    def records(self, row: Row, place: Place) -> Iterator[SourceRecord | UnreadableRecord]:
        """The row's text with its image, or why there is none."""
        texts = named_captions(row) if self._texts is None else captions_of(row, self._texts)
        if isinstance(texts, Problem):
            yield UnreadableRecord(key=place.key, reason=texts.reason, detail=texts.detail)
            return
        image = self.image(row, place)
        if isinstance(image, Problem):
            yield UnreadableRecord(key=place.key, reason=image.reason, detail=image.detail)
            return
        yield SourceRecord(
            key=place.key,
            caption=texts.caption,
            more_captions=texts.more,
            image=image.content if image else None,
            image_ref=image.path if image else None,
            **provenance(row, self._settings, place.key),
        )


def open_text(settings: TextSourceSettings) -> RowFiles | TextSource:
    """The texts that the settings describe: whole files, or rows of files."""
    if settings.per == "file" and format_of(settings.path) == ".txt":
        return TextSource(settings)
    return RowFiles(settings.name, settings, Texts(settings, [settings.text_column]))
