"""WebDataset tars, as img2dataset and `webdataset` write them.

A part is a run of samples of one tar, named by the bytes of that run, and read in place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal

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
from pipeline.sources.endings import PICTURES, TARS, Unread, pictures
from pipeline.sources.files import Problem, plain, problem_of
from pipeline.sources.img2dataset import failure_of, failures, signals, table_of
from pipeline.sources.known_names import provenance_of
from pipeline.sources.samples import (
    JSON,
    MAX_TEXT_BYTES,
    Reading,
    captions_in,
    parse_notes,
    reading_of,
)
from pipeline.sources.tar_files import OpenTar, find_tars, has_tars, open_tar
from pipeline.sources.tar_members import Sample, repetitions, samples


class WebDatasetSettings(Settings):
    """`kind: webdataset`: tars with an image, its texts and JSON under one key."""

    kind: Literal["webdataset"]
    name: str = "webdataset"
    path: RecipePath
    """A tar, or a folder with tars at any depth; absolute or relative to the recipe. Compressed
    ones are unpacked to temporary files, for each part again."""
    image_columns: tuple[str, ...] | None = Field(
        default=None, min_length=1, exclude_if=lambda value: value is None
    )
    """Where the image is: extensions (`jpg`, `input.jpg`), the first that a sample has. Null takes
    the one image that a sample has."""
    caption_columns: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Where the texts are: an extension (`txt`, `de.txt`), which readers of tars take for a column,
    or a key of the sample's JSON (`json:caption`). The first with a text is the caption, the others
    are further captions. Null takes the sample's `txt` (or `caption`), else the fields of its JSON
    that are captions by their names."""
    licence: str = "unknown"
    """SPDX name, for samples whose JSON names no licence."""
    attribution: str = ""
    """Whom to name, for samples whose JSON names nobody."""
    max_image_bytes: int = Field(default=50_000_000, ge=1)
    """A larger image is rejected unread, in bytes."""

    @field_validator("image_columns", "caption_columns")
    @classmethod
    def _extensions_in_lower_case(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return names and tuple(n if n.startswith(JSON) else n.lower() for n in names)

    @field_validator("path")
    @classmethod
    def _has_tars(cls, path: Path) -> Path:
        if not has_tars(path):
            message = f"there is no tar ({', '.join(TARS)}) at {path}"
            raise ValueError(message)
        return path


class WebDatasetSource:
    """Samples by tar and key, so that two tars may use the same keys."""

    def __init__(self, settings: WebDatasetSettings) -> None:
        self._settings = settings
        self.unread = Unread()
        # Corpora of versions whose default this was keep their parts; what is read in another way
        # than they read it is in a part's `reads`.
        found = settings.model_dump(mode="json", exclude={"path"})
        self._decides = {**found, "caption_columns": found["caption_columns"] or ["txt"]}

    def parts(self, rows_per_part: int, known: Mapping[str, Part]) -> Iterator[Part]:
        """Runs of samples of each tar, cut where the keys say."""
        tars, self.unread = find_tars(self._settings.path)
        is_checked = False
        for name, path in tars.items():
            if plain(name) != name:
                detail = f"{plain(name)}: the file's name is not UTF-8"
                yield self._unreadable(
                    name, Problem(reason="ingest-file-unreadable", detail=detail)
                )
                continue
            try:
                look = fingerprint(
                    name=name,
                    files=[_status(path), _status(table_of(path))],
                    rows_per_part=rows_per_part,
                    settings=self._settings.model_dump(mode="json", exclude={"path"}),
                    pictures=pictures(),
                )
                parts = remembered_parts(look, known)
                self._count(part.slice.get("unread", {}) for part in parts)
                if not parts and not is_checked:
                    self._check_columns(tars.values())
                    is_checked = True
                yield from parts or self._cut(name, path, look, rows_per_part)
            except OSError as error:
                yield self._unreadable(name, problem_of(error, path))

    def read(self, part: Part) -> Iterator[SourceRecord | UnreadableRecord]:
        """The samples of one run, then what its tar's downloader had failed at."""
        slice_ = part.slice
        if "problem" in slice_:
            yield UnreadableRecord(key=slice_["tar"], **slice_["problem"])
            return
        root = self._settings.path
        path = root if root.is_file() else root / slice_["tar"]
        with open_tar(path, slice_["start"], slice_["end"]) as tar:
            found = samples(tar.file, slice_["start"], slice_["end"])
            for index, sample in enumerate(found):
                if isinstance(sample, Problem):
                    if "fault" not in slice_:
                        yield UnreadableRecord(key=f"{slice_['tar']}#end", **asdict(sample))
                    continue
                number, *fault = slice_["repeated"].get(str(index), [1])
                key = f"{slice_['tar']}/{sample.key}" + (f"#{number}" if number > 1 else "")
                if fault:
                    yield UnreadableRecord(key=key, reason=fault[0], detail=fault[1])
                else:
                    yield self._record(path, tar, key, sample)
        if "fault" in slice_:
            yield UnreadableRecord(key=f"{slice_['tar']}#end", **slice_["fault"])
        if slice_["failed"]:
            yield from failures(path, slice_["tar"])

    def _unreadable(self, name: str, problem: Problem) -> Part:
        # Without a look: a changed permission does not show in the size and the time.
        slice_ = {"tar": plain(name), "problem": asdict(problem)}
        return Part.of(self._settings.name, slice_, num_records=1)

    def _check_columns(self, tars: Iterable[Path]) -> None:
        wanted = self._settings.caption_columns or ()
        images = self._settings.image_columns
        with_json = any(name.startswith(JSON) for name in wanted)
        check_columns(
            self._settings.name,
            [*((name,) for name in wanted), *([images] if images else [])],
            (each for tar in tars for each in _columns(tar, with_json)),
            where=str(self._settings.path),
        )

    def _count(self, counts: Iterable[Mapping[str, int]]) -> None:
        for unread in counts:
            for kind, count in unread.items():
                self.unread.add(kind, count)

    def _cut(self, name: str, path: Path, look: str, rows_per_part: int) -> list[Part]:
        unread = Unread()
        parts: list[Part] = []
        with open_tar(path) as tar:
            everything = list(samples(tar.file, 0, tar.size, unread))
            found = [each for each in everything if isinstance(each, Sample)]
            num_faults = 1 if tar.fault else len(everything) - len(found)
            repeated = repetitions(found)
            reads = [self._look_at(sample, unread) for sample in found]
            runs = list(cut([sample.key for sample in found], rows_per_part)) or [slice(0, 0)]
            for number, (run, own) in enumerate(
                zip(runs, looks_of_parts(look, len(runs)), strict=True)
            ):
                is_last = number == len(runs) - 1
                start = found[run.start].start if run.stop else 0
                end = tar.size if is_last else found[run.stop].start
                failed = list(failures(path, name)) if number == 0 else []
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
                    "failed": hash_file(table_of(path)) if failed else None,
                    "content": _hash_range(tar.file, start, end),
                    "settings": fingerprint(settings=self._decides),
                    **({"reads": new} if (new := sorted(set().union(*reads[run]))) else {}),
                    **({"fault": asdict(tar.fault)} if is_last and tar.fault else {}),
                }
                if num_records:
                    part = Part.of(
                        self._settings.name,
                        slice_,
                        num_records=num_records,
                        size_bytes=end - start,
                        look=own,
                    )
                    counted = {"unread": dict(unread)} if unread and not parts else {}
                    parts.append(replace(part, slice={**part.slice, **counted}))
        self._count([unread])
        return parts

    def _reading(self, sample: Sample) -> Reading | Problem:
        return reading_of(
            sample.key,
            {kind: size for kind, (_, size) in sample.files.items()},
            image_columns=self._settings.image_columns,
            caption_columns=self._settings.caption_columns,
            max_image_bytes=self._settings.max_image_bytes,
        )

    def _look_at(self, sample: Sample, unread: Unread) -> set[str]:
        """Count what is not read of a sample; gives what earlier versions would not have read."""
        reading = self._reading(sample)
        if isinstance(reading, Problem):
            return set()
        for kind in sample.files.keys() - reading.files:
            unread.note(f"0.{kind.rpartition('.')[2]}", "in tars")
        is_by_name = self._settings.caption_columns is None
        captions = set(reading.texts or filter(None, [reading.notes])) if is_by_name else set()
        return ({reading.image} - _ALWAYS_READ) | (captions - {"txt"})

    def _record(
        self, path: Path, tar: OpenTar, key: str, sample: Sample
    ) -> SourceRecord | UnreadableRecord:
        reading = sample.fault or self._reading(sample)
        if isinstance(reading, Problem):
            return UnreadableRecord(key=key, **asdict(reading))
        content = {kind: _read(tar.file, sample.files[kind]) for kind in reading.files}
        notes = parse_notes(content[reading.notes]) if reading.notes else {}
        if isinstance(notes, Problem):
            return UnreadableRecord(key=key, **asdict(notes))
        texts = {kind: content[kind] for kind in reading.texts}
        captions = failure_of(notes) or captions_in(
            texts, notes if reading.notes else None, self._settings.caption_columns
        )
        if isinstance(captions, Problem):
            return UnreadableRecord(key=key, **asdict(captions))
        offset, size = sample.files[reading.image]
        place = (
            None if tar.is_compressed else tar_reference(path.as_posix(), offset=offset, size=size)
        )
        return SourceRecord(
            key=key,
            caption=captions.caption,
            image=content[reading.image],
            more_captions=captions.more,
            image_ref=place,
            signals=signals(notes),
            **provenance_of(
                notes,
                licence=self._settings.licence,
                attribution=self._settings.attribution,
                origin=plain(key),
            ),
        )


_ALWAYS_READ = {ending[1:] for ending in PICTURES[: PICTURES.index(".svg") + 1]}
"""Images that every version has read."""


def _columns(path: Path, with_json: bool) -> Iterator[list[str]]:
    """What each of a tar's first samples has: extensions, and the keys of its JSON.

    Nothing where the tar cannot be read, which its part says.
    """
    try:
        with open_tar(path) as tar:
            found = (each for each in samples(tar.file, 0, tar.size) if isinstance(each, Sample))
            for sample in islice(found, NUM_FIRST_ROWS):
                place = sample.files.get("json", (0, 0)) if with_json else (0, 0)
                small = 0 < place[1] <= MAX_TEXT_BYTES
                notes = parse_notes(_read(tar.file, place)) if small else {}
                keys = () if isinstance(notes, Problem) else notes
                yield [*sample.files, *(f"{JSON}{key}" for key in keys)]
    except OSError as error:
        problem_of(error, path)  # a store that does not answer is raised


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
