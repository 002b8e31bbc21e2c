"""Metadata files of a folder: a row a picture, as `datasets`' ImageFolder has them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa

from pipeline.engine.fingerprint import fingerprint
from pipeline.sources import lines, row_groups
from pipeline.sources.columns import refuse_twins
from pipeline.sources.files import Problem, kind_of, place_below, plain, problem_of
from pipeline.sources.folder_walk import Place, look_at
from pipeline.sources.image_cells import readings, refuse_address
from pipeline.sources.known_names import (
    IMAGES,
    caption_columns,
    image_column,
    normal,
    provenance_columns,
)
from pipeline.sources.spans import Row, columns_of, is_parquet


def read_metadata(
    root: Path, files: Collection[str], columns: Sequence[str] | None
) -> Iterator[tuple[str, Place | Problem, bool]]:
    """For each row of a folder's metadata: the picture's key, the row, and if it has captions.

    A file speaks of the pictures in its own folder and below; where two do, the nearer one counts.
    A row that names no picture, or one that has a row already, is a problem under the metadata
    file's own key and its number.

    Raises:
        UserError: when a file has two columns of one name that is used.
    """
    seen: dict[str, str] = {}
    for file in sorted(files, key=lambda key: (-key.count("/"), key)):
        names = columns_of(root / file)
        captions = columns or caption_columns(names)
        used = (_image_column(names), *captions, *provenance_columns(names))
        refuse_twins(root / file, names, filter(None, used))
        for number, (place, row) in enumerate(_rows(root / file)):
            by_number = f"{file}#{number}"
            if isinstance(row, Problem):
                yield by_number, row, False
                continue
            key = _key(root, file, row)
            if isinstance(key, Problem):
                yield by_number, key, False
            elif key in seen:
                detail = f"{key} has a row already, in {seen[key]}"
                yield by_number, Problem(reason="ingest-duplicate-key", detail=detail), False
            else:
                seen[key] = file
                print_ = _fingerprint(row, columns)
                has_captions = bool(caption_columns_of(row, columns))
                yield key, Place(file=file, place=place, fingerprint=print_), has_captions


def read_places(
    root: Path, file: str, places: Mapping[int, str]
) -> Iterator[tuple[str, Row | Problem]]:
    """The rows at some places of a metadata file, each with the key that is given for its place.

    A row that is another picture's is a problem: the file may have changed since it was listed.
    """
    for place, row in _rows_at(root / file, sorted(places)):
        is_its_own = isinstance(row, Problem) or _key(root, file, row) == places[place]
        yield places[place], row if is_its_own else _GONE


def _rows_at(file: Path, wanted: Sequence[int]) -> Iterator[tuple[int, Row | Problem]]:
    if not is_parquet(file):
        with closing(lines.LineFile(file)) as stream:
            raw = iter(stream)
            for place in wanted:
                if stream.offset != place:
                    stream.seek(place)
                    raw = iter(stream)
                yield place, stream.parse(next(raw, _GONE))
        return
    # One pass from the first to the last: most files are in the order of the names.
    places = set(wanted)
    rows = row_groups.read_rows(file, wanted[0], wanted[-1] - wanted[0] + 1, lambda names: names)
    yield from ((place, row) for place, row in enumerate(rows, wanted[0]) if place in places)


_GONE = Problem(reason="ingest-row-malformed", detail="the metadata file has changed since")


def caption_columns_of(row: Mapping[str, object], columns: Sequence[str] | None) -> Sequence[str]:
    """The columns of a row that are captions: by the recipe, else by their names."""
    if columns is None:
        return caption_columns(row)
    return [each for each in columns if each in row]


def _image_column(names: Collection[str]) -> str | None:
    """The column that names the picture, which may be a list of one."""
    lists = (name for name in names if normal(name).endswith("file_names"))
    return image_column(names) or next(lists, None)


def _rows(file: Path) -> Iterator[tuple[int, Row | Problem]]:
    """All rows of a file, each with its place."""
    try:
        if is_parquet(file):
            yield from enumerate(row_groups.read_all(file))
            return
        with closing(lines.LineFile(file)) as stream:
            place = stream.offset
            for raw in stream:
                yield place, stream.parse(raw)
                place = stream.offset
    except OSError as error:
        yield 0, problem_of(error, file)
    except (ValueError, LookupError, ArithmeticError, pa.ArrowException) as error:
        detail = f"{plain(file.name)} is damaged: {error}"
        yield 0, Problem(reason="ingest-file-unreadable", detail=detail)


def _key(root: Path, file: str, row: Row) -> str | Problem:
    """The key of the picture that a row names."""
    column = _image_column(row)
    if column is None:
        known = f"{', '.join(IMAGES[:3])} or another of its known names"
        detail = f"no column is called {known}: there are {plain(', '.join(row))}"
        return Problem(reason="ingest-no-key", detail=detail)
    value = row[column]
    if isinstance(value, list):
        if len(value) > 1:
            detail = f"{plain(column)} names {len(value)} pictures, and a record has one"
            return Problem(reason="ingest-several-images", detail=detail)
        value = value[0] if value else None
    if isinstance(value, dict):
        value = value.get("path")
    if not isinstance(value, str) or not value:
        found = "empty" if value == "" else kind_of(value)
        detail = f"{plain(column)} is {found}, not the name of a file"
        return Problem(reason="ingest-no-key", detail=detail)
    if (problem := refuse_address(value)) is not None:
        return problem
    places = [place_below((root / file).parent, name) for name in dict.fromkeys(readings(value))]
    place, *others = places
    if others:
        there = (each for each in places if isinstance(each, Path) and not look_at(each).problem)
        place = next(there, place)
    return place if isinstance(place, Problem) else plain(place.relative_to(root).as_posix())


def _fingerprint(row: Row, columns: Sequence[str] | None) -> str:
    """A hash of the cells that decide a record, made as ever, so that parts keep their names."""
    used = {name: row.get(name) for name in columns or ()}
    by_name = [*([] if columns else caption_columns(row)), *provenance_columns(row)]
    used |= {name: row[name] for name in by_name if row[name] is not None}
    # JSON's own escapes stand for what is not UTF-8.
    return fingerprint(look="", problem=None, row=json.dumps(used, default=str))


NO_ROW = fingerprint(look="", problem=None, row="null")
"""In place of the fingerprint of a row, where a picture has none."""
