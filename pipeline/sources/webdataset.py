"""WebDataset tars, as img2dataset and `webdataset` write them.

A part is a run of samples of one tar, named by the bytes of that run, and read in place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, field_validator

from pipeline.engine.fingerprint import fingerprint, hash_file
from pipeline.engine.parts import (
    Part,
    SourceRecord,
    UnreadableRecord,
    cut,
    looks_of_parts,
    remembered_parts,
)
from pipeline.references import tar_reference
from pipeline.settings import RecipePath, Settings
from pipeline.sources.columns import NUM_FIRST_ROWS, check_columns
from pipeline.sources.files import problem_of
from pipeline.sources.tar_members import Fault, Sample, repetitions, samples

_IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2", "svg")
_MAX_TEXT_BYTES = 2_000_000
_JSON = "json:"
_DISALLOWED = "X-Robots-Tag"  # in img2dataset's error message when it honours one
_SIGNALS = ("x-robots-tag", "tdm-reservation")


class WebDatasetSettings(Settings):
    """`kind: webdataset`: tars with an image, its texts and JSON under one key."""

    kind: Literal["webdataset"]
    name: str = "webdataset"
    path: RecipePath
    """A tar, or a folder with tars at any depth; absolute or relative to the recipe."""
    caption_columns: tuple[str, ...] = Field(default=("txt",), min_length=1)
    """Where the texts are: an extension (`txt`, `de.txt`), which readers of tars take for a column,
    or a key of the sample's JSON (`json:caption`). The first that a sample has is its caption, the
    others are further captions."""
    licence: str = "unknown"
    """SPDX name, for samples whose JSON has no `license` or `licence`."""
    attribution: str = ""
    """Whom to name, for samples whose JSON has no `attribution` or `author`."""
    max_image_bytes: int = Field(default=50_000_000, ge=1)
    """A larger image is rejected unread, in bytes."""

    @field_validator("path")
    @classmethod
    def _has_tars(cls, path: Path) -> Path:
        if not _tars(path):
            message = f"there is no .tar at {path}"
            raise ValueError(message)
        return path


class WebDatasetSource:
    """Samples by tar and key, so that two tars may use the same keys."""

    def __init__(self, settings: WebDatasetSettings) -> None:
        self._settings = settings

    def parts(self, rows_per_part: int, known: Mapping[str, Part]) -> Iterator[Part]:
        """Runs of samples of each tar, cut where the keys say."""
        is_checked = False
        for name, path in _tars(self._settings.path).items():
            look = fingerprint(
                name=name,
                files=[_status(path), _status(path.with_suffix(".parquet"))],
                rows_per_part=rows_per_part,
                settings=self._settings.model_dump(mode="json"),
            )
            parts = remembered_parts(look, known)
            if not parts and not is_checked:
                self._check_columns()
                is_checked = True
            try:
                yield from parts or list(self._cut(name, path, look, rows_per_part))
            except OSError as error:
                # Without a look: a changed permission does not show in the size and the time.
                problem = asdict(problem_of(error, path))
                yield Part.of(self._settings.name, {"tar": name, "problem": problem}, num_records=1)

    def read(self, part: Part) -> Iterator[SourceRecord | UnreadableRecord]:
        """The samples of one run, then what its tar's downloader had failed at."""
        slice_ = part.slice
        if "problem" in slice_:
            yield UnreadableRecord(key=slice_["tar"], **slice_["problem"])
            return
        root = self._settings.path
        path = root if root.is_file() else root / slice_["tar"]
        with path.open("rb") as file:
            found = list(samples(file, slice_["start"], slice_["end"]))
            for index, sample in enumerate(found):
                if isinstance(sample, Fault):
                    key = f"{slice_['tar']}#end"
                    yield UnreadableRecord(key=key, reason=sample.reason, detail=sample.detail)
                    continue
                number, *fault = slice_["repeated"].get(str(index), [1])
                key = f"{slice_['tar']}/{sample.key}" + (f"#{number}" if number > 1 else "")
                if fault:
                    yield UnreadableRecord(key=key, reason=fault[0], detail=fault[1])
                else:
                    yield self._record(path, file, key, sample)
        if slice_["failed"]:
            yield from _failures(path, slice_["tar"])

    def _check_columns(self) -> None:
        wanted = self._settings.caption_columns
        with_json = any(name.startswith(_JSON) for name in wanted)
        check_columns(
            self._settings.name,
            [(name,) for name in wanted],
            (
                each
                for tar in _tars(self._settings.path).values()
                for each in _columns(tar, with_json)
            ),
            where=str(self._settings.path),
        )

    def _cut(self, name: str, path: Path, look: str, rows_per_part: int) -> Iterator[Part]:
        with path.open("rb") as file:
            everything = list(samples(file, 0, path.stat().st_size))
            found = [each for each in everything if isinstance(each, Sample)]
            num_faults = len(everything) - len(found)
            repeated = repetitions(found)
            runs = list(cut([sample.key for sample in found], rows_per_part)) or [slice(0, 0)]
            for number, (run, own) in enumerate(
                zip(runs, looks_of_parts(look, len(runs)), strict=True)
            ):
                is_last = number == len(runs) - 1
                start = found[run.start].start if run.stop else 0
                end = path.stat().st_size if is_last else found[run.stop].start
                failed = list(_failures(path, name)) if number == 0 else []
                num_records = run.stop - run.start + len(failed) + is_last * num_faults
                slice_ = {
                    "tar": name,
                    "start": start,
                    "end": end,
                    "repeated": {
                        str(index - run.start): [number_of_key, fault.reason, fault.detail]
                        for index, (number_of_key, fault) in repeated.items()
                        if run.start <= index < run.stop
                    },
                    "failed": hash_file(path.with_suffix(".parquet")) if failed else None,
                    "content": _hash_range(file, start, end),
                    "settings": fingerprint(
                        settings=self._settings.model_dump(mode="json", exclude={"path"})
                    ),
                }
                if num_records:
                    yield Part.of(
                        self._settings.name,
                        slice_,
                        num_records=num_records,
                        size_bytes=end - start,
                        look=own,
                    )

    def _record(
        self, path: Path, file: BinaryIO, key: str, sample: Sample
    ) -> SourceRecord | UnreadableRecord:
        image = next((kind for kind in _IMAGES if kind in sample.files), None)
        fault = sample.fault or self._fault_of(sample, image)
        metadata, failure = _metadata(file, sample) if fault is None else ({}, None)
        fault = fault or failure or _failure_of(metadata)
        if fault is not None or image is None:
            fault = fault or Fault(reason="ingest-no-image", detail="there is no image")
            return UnreadableRecord(key=key, reason=fault.reason, detail=fault.detail)
        texts = self._texts(file, sample, metadata)
        if not texts:
            detail = f"there is no {' or '.join(self._settings.caption_columns)} beside the image"
            return UnreadableRecord(key=key, reason="ingest-no-caption", detail=detail)
        caption, *_ = texts.values()
        offset, size = sample.files[image]
        licence = metadata.get("licence") or metadata.get("license") or self._settings.licence
        attribution = metadata.get("attribution") or metadata.get("author")
        return SourceRecord(
            key=key,
            caption=caption,
            image=_read(file, sample.files[image]),
            licence=_plain(licence),
            attribution=_plain(attribution or self._settings.attribution),
            origin=_plain(metadata.get("url") or key),
            more_captions=dict(list(texts.items())[1:]),
            image_ref=tar_reference(path.as_posix(), offset=offset, size=size),
            signals=_signals(metadata),
        )

    def _fault_of(self, sample: Sample, image: str | None) -> Fault | None:
        if image is None:
            dotted = [kind for kind in sample.files if kind.rpartition(".")[2] in _IMAGES]
            if dotted:
                detail = f"{sample.key}.{dotted[0]}: the key ends at the first dot, so rename it"
                return Fault(reason="ingest-dotted-key", detail=detail)
            kinds = ", ".join(sorted(sample.files))
            return Fault(reason="ingest-no-image", detail=f"there is no image among {kinds}")
        for kind, (_, size) in sample.files.items():
            limit = self._settings.max_image_bytes if kind == image else _MAX_TEXT_BYTES
            if size > limit and (
                kind == image or kind in {"json", *self._settings.caption_columns}
            ):
                what = "image" if kind == image else "caption" if kind != "json" else "metadata"
                code = "long" if what == "caption" else "large"
                detail = f"{size} bytes of {kind}, allowed are {limit}"
                return Fault(reason=f"ingest-{what}-too-{code}", detail=detail)
        return None

    def _texts(
        self, file: BinaryIO, sample: Sample, metadata: Mapping[str, Any]
    ) -> dict[str, str | bytes]:
        texts: dict[str, str | bytes] = {}
        for name in self._settings.caption_columns:
            if name.startswith(_JSON):
                value = metadata.get(name.removeprefix(_JSON))
                if isinstance(value, str):
                    texts[name.removeprefix(_JSON)] = value
            elif name in sample.files:
                texts[name] = _read(file, sample.files[name])
        return texts


def _tars(path: Path) -> dict[str, Path]:
    """Every tar by its name below the folder, in order."""
    if path.is_file():
        return {path.name: path} if path.suffix == ".tar" else {}
    return {tar.relative_to(path).as_posix(): tar for tar in sorted(path.rglob("*.tar"))}


def _columns(tar: Path, with_json: bool) -> Iterator[list[str]]:
    """What each of a tar's first samples has: extensions, and the keys of its JSON.

    Nothing where the tar cannot be read, which its part says.
    """
    try:
        with tar.open("rb") as file:
            end = tar.stat().st_size
            found = (each for each in samples(file, 0, end) if isinstance(each, Sample))
            for sample in islice(found, NUM_FIRST_ROWS):
                small = sample.files.get("json", (0, 0))[1] <= _MAX_TEXT_BYTES
                keys = _metadata(file, sample)[0] if with_json and small else {}
                yield [*sample.files, *(f"{_JSON}{key}" for key in keys)]
    except OSError as error:
        problem_of(error, tar)  # a store that does not answer is raised


def _status(path: Path) -> list[int] | None:
    if not path.exists():
        return None
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _hash_range(file: BinaryIO, start: int, end: int) -> str:
    digest = hashlib.sha256()
    file.seek(start)
    while (left := end - file.tell()) > 0 and (block := file.read(min(left, 1 << 20))):
        digest.update(block)
    return digest.hexdigest()


def _read(file: BinaryIO, place: tuple[int, int]) -> bytes:
    offset, size = place
    file.seek(offset)
    return file.read(size)


def _metadata(file: BinaryIO, sample: Sample) -> tuple[dict[str, Any], Fault | None]:
    if "json" not in sample.files:
        return {}, None
    try:
        found = json.loads(_read(file, sample.files["json"]))
    except (ValueError, RecursionError) as error:
        return {}, Fault(reason="ingest-metadata-malformed", detail=f"no JSON: {error}")
    if not isinstance(found, dict):
        detail = f"the JSON is {type(found).__name__}, not an object"
        return {}, Fault(reason="ingest-metadata-malformed", detail=detail)
    return found, None


def _failure_of(row: Mapping[str, Any]) -> Fault | None:
    """The failure that img2dataset's status columns tell of."""
    status, message = row.get("status"), str(row.get("error_message"))
    if status in (None, "success"):
        return None
    reason = "ingest-opted-out" if _DISALLOWED in message else "ingest-download-failed"
    return Fault(reason=reason, detail=_plain(f"{status}: {message} ({row.get('url')})"))


def _failures(path: Path, name: str) -> Iterator[UnreadableRecord]:
    """The rows that img2dataset failed at: they stand only in the Parquet file beside the tar."""
    table = path.with_suffix(".parquet")
    if not table.exists():
        return
    try:
        with pq.ParquetFile(table) as file:
            if not {"key", "status"} <= set(file.schema_arrow.names):
                return
            wanted = {"key", "status", "error_message", "url"} & set(file.schema_arrow.names)
            rows = file.read(columns=sorted(wanted)).to_pylist()
    except (OSError, pa.ArrowException) as error:
        detail = f"{table.name} beside the tar: {error}"
        yield UnreadableRecord(
            key=f"{name}#failures", reason="ingest-file-unreadable", detail=detail
        )
        return
    for row in rows:
        fault = _failure_of(row)
        if fault is not None:
            key = f"{name}/{_plain(row['key'])}"
            yield UnreadableRecord(key=key, reason=fault.reason, detail=fault.detail)


def _signals(metadata: Mapping[str, Any]) -> dict[str, str]:
    """What the downloader recorded of the response's headers."""
    headers = metadata.get("headers")
    fields = {**(headers if isinstance(headers, dict) else {}), **metadata}
    return {
        name: "\n".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in fields.items()
        if name.lower().replace("_", "-") in _SIGNALS and value is not None
    }


def _plain(value: object) -> str:
    """Text that UTF-8 can hold."""
    return str(value).encode("utf-8", "backslashreplace").decode()
