"""A dataset of the Hugging Face hub, or one that `datasets` has saved on disk.

Both are files of rows (Parquet on the hub, Arrow from `save_to_disk`), so a part is a run of rows
of one file. On the hub only the row groups that a part needs are fetched, at the revision that the
part has pinned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from pipeline.engine.fingerprint import fingerprint, hash_file
from pipeline.engine.parts import (
    Part,
    SourceRecord,
    UnreadableRecord,
    looks_of_parts,
    remembered_parts,
)
from pipeline.engine.storage import is_local, read_json
from pipeline.errors import UserError
from pipeline.references import image_of, parquet_reference
from pipeline.settings import RecipePath, Settings
from pipeline.sources.captions import captions_of
from pipeline.sources.columns import check_columns
from pipeline.sources.files import Problem


class HuggingFaceSettings(Settings):
    """`kind: huggingface`: a dataset by its hub name, or saved on disk."""

    kind: Literal["huggingface"]
    name: str = "huggingface"
    dataset: str | None = None
    """Its name on the hub, such as `nlphuji/flickr30k`; the hub's own Parquet conversion is at
    `revision: refs/convert/parquet`."""
    path: RecipePath | None = None
    """Or a local folder: from `save_to_disk`, or of Parquet files as `load_dataset` reads them."""
    config: str | None = None
    """The dataset's configuration, where it has several."""
    split: str = "train"
    """The split to take."""
    revision: str = "main"
    """A branch, tag or commit of the hub's repository; each part pins the commit."""
    image_column: str | None = "image"
    """The column with the image; null for texts alone."""
    caption_columns: tuple[str, ...] = Field(default=("text",), min_length=1)
    """The columns with texts, of which a cell may hold several (COCO has five captions an image).
    The first with a text is the caption, the others are further captions."""
    licence: str = "unknown"
    """SPDX name of the licence, kept on every record."""
    attribution: str = ""
    """Whom to name when a record is used."""

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        if (self.dataset is None) == (self.path is None):
            message = "give either `dataset` (a hub name) or `path` (a folder)"
            raise ValueError(message)
        if self.path is not None and not is_local(self.path):
            message = f"{self.path} must be a local folder; `kind: table` reads Parquet on a store"
            raise ValueError(message)
        if self.path is not None and not self.path.is_dir():
            message = f"there is no folder {self.path}"
            raise ValueError(message)
        return self


class HuggingFaceSource:
    """Rows by file and number."""

    def __init__(self, settings: HuggingFaceSettings) -> None:
        self._settings = settings

    def parts(self, rows_per_part: int, known: Mapping[str, Part]) -> Iterator[Part]:
        """Runs of `rows_per_part` rows of each file."""
        revision = _commit(self._settings) if self._settings.dataset is not None else None
        decides = self._settings.model_dump(mode="json", exclude={"path", "revision"})
        for file in _files(self._settings, revision):
            place = _place(self._settings, file, revision)
            state = _state(place)
            look = fingerprint(file=file, state=state, rows=rows_per_part, settings=decides)
            parts = remembered_parts(look, known)
            if not parts:
                content = hash_file(Path(place)) if "://" not in place else state
                names, num_rows = _shape(place)
                needed = [(name,) for name in self._columns()]
                check_columns(self._settings.name, needed, [names], where=place)
                starts = range(0, num_rows, rows_per_part)
                parts = [
                    Part.of(
                        self._settings.name,
                        {
                            "file": file,
                            "start": start,
                            "count": min(rows_per_part, num_rows - start),
                            "content": content,
                            "settings": fingerprint(settings=decides),
                        },
                        num_records=min(rows_per_part, num_rows - start),
                        look=own,
                    )
                    for start, own in zip(starts, looks_of_parts(look, len(starts)), strict=True)
                ]
            # Not in the name: a commit that leaves this file alone leaves its parts alone.
            yield from (replace(part, slice={**part.slice, "revision": revision}) for part in parts)

    def read(self, part: Part) -> Iterator[SourceRecord | UnreadableRecord]:
        """The rows of one run, in the file's order."""
        file, start = part.slice["file"], part.slice["start"]
        place = _place(self._settings, file, part.slice["revision"])
        rows = _rows(place, self._columns(), start, part.slice["count"])
        for number, row in enumerate(rows, start=start):
            yield self._record(f"{file}:{number:09d}", row, place, number)

    def _columns(self) -> list[str]:
        image = [self._settings.image_column] if self._settings.image_column is not None else []
        return [*image, *self._settings.caption_columns]

    def _record(
        self, key: str, row: Mapping[str, Any], place: str, number: int
    ) -> SourceRecord | UnreadableRecord:
        image, image_ref = None, None
        if self._settings.image_column is not None:
            image = image_of(row[self._settings.image_column])
            if image is None:
                detail = f"{self._settings.image_column} holds no bytes"
                return UnreadableRecord(key=key, reason="ingest-no-image", detail=detail)
            if place.endswith(".parquet"):
                image_ref = parquet_reference(place, column=self._settings.image_column, row=number)
        captions = captions_of(row, self._settings.caption_columns)
        if isinstance(captions, Problem):
            return UnreadableRecord(key=key, reason=captions.reason, detail=captions.detail)
        return SourceRecord(
            key=key,
            caption=captions.caption,
            image=image,
            licence=self._settings.licence,
            attribution=self._settings.attribution,
            origin=place if "://" in place else key,
            more_captions=captions.more,
            image_ref=image_ref,
        )


def _commit(settings: HuggingFaceSettings) -> str:
    from huggingface_hub import HfApi

    return str(HfApi().dataset_info(str(settings.dataset), revision=settings.revision).sha)


def _files(settings: HuggingFaceSettings, revision: str | None) -> list[str]:
    """The split's files in their order, by their path below the dataset.

    Raises:
        UserError: when the dataset has no such split, or is not of Parquet or Arrow files.
    """
    if settings.path is not None:
        folder = settings.path
        split = f"{settings.split}/" if (folder / "dataset_dict.json").exists() else ""
        state = folder / split / "state.json"
        if state.exists():
            return [split + str(file["filename"]) for file in read_json(state)["_data_files"]]
    import datasets

    where = str(settings.path or settings.dataset)
    builder = datasets.load_dataset_builder(where, settings.config, revision=revision)
    found = builder.config.data_files or {}
    if settings.split not in found:
        splits = ", ".join(map(str, found)) or "none"
        raise UserError(f"{where} has no split {settings.split!r}", f"Its splits: {splits}.")
    prefix = f"{settings.path}/" if settings.path else f"hf://datasets/{where}@{revision}/"
    files = [str(file).removeprefix(prefix) for file in found[settings.split]]
    if not all(file.endswith(".parquet") for file in files):
        hint = "The hub converts most datasets: set `revision: refs/convert/parquet`."
        raise UserError(f"{where} is not of Parquet files, but of {files[0]}", hint)
    return files


def _place(settings: HuggingFaceSettings, file: str, revision: str | None) -> str:
    if settings.path is not None:
        return (settings.path / file).as_posix()
    return f"hf://datasets/{settings.dataset}@{revision}/{file}"


def _state(place: str) -> str:
    """What tells cheaply whether a file has changed: on the hub, its hash."""
    if "://" not in place:
        status = Path(place).stat()
        return f"{status.st_size}-{status.st_mtime_ns}"
    system, path = fsspec.core.url_to_fs(place)
    found = system.info(path)
    return str((found.get("lfs") or {}).get("sha256") or found["blob_id"])


def _open_arrow(place: str) -> pa.Table:
    """The table of an Arrow stream; its bytes stay on the disk until a row is read."""
    return pa.ipc.open_stream(pa.memory_map(place)).read_all()


def _shape(place: str) -> tuple[list[str], int]:
    """The columns of a file, and how many rows it has.

    Raises:
        UserError: when it cannot be read.
    """
    try:
        if place.endswith(".arrow"):
            table = _open_arrow(place)
            return table.schema.names, table.num_rows
        with fsspec.open(place, "rb") as file:
            parquet = pq.ParquetFile(file)
            return parquet.schema_arrow.names, parquet.metadata.num_rows
    except pa.ArrowException as error:
        raise UserError(f"{place} is damaged: {error}", "Fetch or save it again.") from error


def _rows(place: str, columns: list[str], start: int, count: int) -> Iterator[dict[str, Any]]:
    """Some rows of a file, a few in memory at a time."""
    if place.endswith(".arrow"):
        for batch in _open_arrow(place).select(columns).slice(start, count).to_batches(64):
            yield from batch.to_pylist()
        return
    with fsspec.open(place, "rb") as file:
        parquet, first = pq.ParquetFile(file), 0
        for group in range(parquet.num_row_groups):
            end = first + parquet.metadata.row_group(group).num_rows
            if first < start + count and start < end:
                here = slice(max(start - first, 0), min(start + count, end) - first)
                table = parquet.read_row_group(group, columns=columns)
                yield from table.slice(here.start, here.stop - here.start).to_pylist()
            first = end
