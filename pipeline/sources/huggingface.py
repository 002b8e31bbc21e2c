"""A dataset of the Hugging Face hub, or one that `datasets` has saved on disk.

Both are files of rows (Parquet on the hub, Arrow from `save_to_disk`), so a part is a run of rows
of one file. On the hub only the row groups that a part needs are fetched, at the revision that the
part has pinned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import fsspec
import pyarrow as pa
from pydantic import Field, model_validator

from pipeline.engine.fingerprint import fingerprint, hash_file
from pipeline.engine.parts import (
    Part,
    SourceRecord,
    UnreadableRecord,
    looks_of_parts,
    remembered_parts,
)
from pipeline.engine.storage import is_local, read_json, to_path
from pipeline.errors import UserError
from pipeline.references import image_of, parquet_reference
from pipeline.settings import RecipePath, Settings
from pipeline.sources import known_names, row_groups
from pipeline.sources.captions import captions_of, named_captions
from pipeline.sources.columns import CAPTIONS, check_columns, refuse_twins
from pipeline.sources.files import Problem
from pipeline.sources.image_cells import ImageCell, read_image

_MAX_IMAGE_BYTES = 50_000_000
"""A larger image is rejected undecoded, as the other sources do by default."""


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
    caption_columns: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """The columns with texts, of which a cell may hold several (COCO has five captions an image).
    The first with a text is the caption, the others are further captions. Null takes the columns
    that are captions by their names (`docs/sources.md`), of which the first has to hold a text."""
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
        """Whole row groups of each file, about `rows_per_part` rows; a large one is divided."""
        revision = _commit(self._settings) if self._settings.dataset is not None else None
        decides = self._settings.model_dump(mode="json", exclude={"path", "revision"})
        former = decides | {"caption_columns": ["text"]}  # the default of earlier versions
        for file in _files(self._settings, revision):
            place = _place(self._settings, file, revision)
            state = _state(place)
            looks = [
                fingerprint(file=file, state=state, rows=rows_per_part, settings=each)
                for each in ([decides, former] if decides["caption_columns"] is None else [decides])
            ]
            remembered = (remembered_parts(look, known) for look in looks)
            parts = next(filter(None, remembered), None) or self._cut(
                file, place, state, rows_per_part
            )
            # Not in the name: a commit that leaves this file alone leaves its parts alone.
            for part, look in zip(parts, looks_of_parts(looks[0], len(parts)), strict=True):
                yield replace(part, slice={**part.slice, "revision": revision}, look=look)

    def read(self, part: Part) -> Iterator[SourceRecord | UnreadableRecord]:
        """The rows of one run, in the file's order."""
        slice_ = part.slice
        if "problem" in slice_:
            yield UnreadableRecord(key=slice_["file"], **slice_["problem"])
            return
        place = _place(self._settings, slice_["file"], slice_["revision"])
        rows = _rows(place, self._columns, slice_["start"], slice_["count"])
        for number, row in enumerate(rows, start=slice_["start"]):
            key = f"{slice_['file']}:{number:09d}"
            record = row if isinstance(row, Problem) else self._record(key, row, place, number)
            if isinstance(record, Problem):
                yield UnreadableRecord(key=key, reason=record.reason, detail=record.detail)
            else:
                yield record

    def _columns(self, there: Sequence[str]) -> list[str]:
        """What reading a row needs of the columns that a file has."""
        image = [] if self._settings.image_column is None else [self._settings.image_column]
        texts = self._settings.caption_columns
        named = known_names.caption_columns(there) if texts is None else texts
        return [*image, *named, *known_names.provenance_columns(there)]

    def _cut(self, file: str, place: str, state: str, rows_per_part: int) -> list[Part]:
        shape = _shape(place)
        if isinstance(shape, Problem):
            slice_: dict[str, Any] = {"file": file, "content": state, "problem": asdict(shape)}
            return [Part.of(self._settings.name, slice_, num_records=1)]
        names, lengths = shape
        image, texts = self._settings.image_column, self._settings.caption_columns
        needed: list[Sequence[str]] = [CAPTIONS] if texts is None else [(name,) for name in texts]
        needed += [] if image is None else [(image,)]
        check_columns(self._settings.name, needed, [names], where=place)
        refuse_twins(place, names, self._columns(names))
        decides = self._settings.model_dump(mode="json", exclude={"path", "revision"})
        common = {
            "file": file,
            "content": hash_file(Path(place)) if "://" not in place else state,
            "settings": fingerprint(settings=decides),
        }
        return [
            Part.of(
                self._settings.name,
                common | {"start": start, "count": count},
                num_records=count,
            )
            for start, count in _runs(lengths, rows_per_part)
        ]

    def _record(
        self, key: str, row: Mapping[str, Any], place: str, number: int
    ) -> SourceRecord | Problem:
        image: ImageCell | None = None
        image_ref, column = None, self._settings.image_column
        if column is not None:
            found = read_image(row.get(column), self._settings.path, _MAX_IMAGE_BYTES)
            if isinstance(found, Problem):
                return found
            image, image_ref = found, found.path
            if place.endswith(".parquet") and image_of(row[column]) is not None:
                image_ref = parquet_reference(place, column=column, row=number)
        texts = self._settings.caption_columns
        captions = named_captions(row) if texts is None else captions_of(row, texts)
        if isinstance(captions, Problem):
            return captions
        said = known_names.provenance_of(
            row,
            licence=self._settings.licence,
            attribution=self._settings.attribution,
            origin=place if "://" in place else key,
        )
        return SourceRecord(
            key=key,
            caption=captions.caption,
            image=image.content if image else None,
            more_captions=captions.more,
            image_ref=image_ref,
            **said,
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


def _shape(place: str) -> tuple[list[str], list[int]] | Problem:
    """The columns of a file and the lengths of its row groups, or why it cannot be read."""
    if not place.endswith(".arrow"):
        return row_groups.shape_of(to_path(place))
    try:
        table = _open_arrow(place)
    except (pa.ArrowException, OSError) as error:
        return row_groups.problem_of_damage(error)
    return table.schema.names, [table.num_rows]


def _runs(lengths: Sequence[int], rows_per_part: int) -> Iterator[tuple[int, int]]:
    """Runs of rows as (start, count): whole row groups, of which only a large one is divided."""
    start = held = 0
    for length in lengths:
        whole, rest = divmod(length, rows_per_part)
        pieces = [length] if whole < 2 else [rows_per_part] * whole + [rest]
        for piece in pieces:
            held += piece
            if held >= rows_per_part:
                yield start, held
                start, held = start + held, 0
    if held:
        yield start, held


def _rows(
    place: str, choose: row_groups.Choose, start: int, count: int
) -> Iterator[dict[str, Any] | Problem]:
    """Some rows of a file, a few in memory at a time; what cannot be read is a problem each."""
    if not place.endswith(".arrow"):
        yield from row_groups.read_rows(to_path(place), start, count, choose)
        return
    num_given = 0
    try:
        table = _open_arrow(place)
        names = list(dict.fromkeys(choose(table.schema.names)))
        for batch in table.select(names).slice(start, count).to_batches(row_groups.ROWS_PER_BATCH):
            for row in row_groups.to_rows(batch):
                yield row
                num_given += 1
    except (pa.ArrowException, OSError) as error:
        yield from [row_groups.problem_of_damage(error)] * (count - num_given)
