"""What the files of one sample of a tar are: its picture, its texts, and its notes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.sources.captions import Captions, captions_of, named_captions
from pipeline.sources.endings import CAPTIONS, EXTRAS, pictures
from pipeline.sources.files import Problem, as_text, kind_of
from pipeline.text_files import decode_text

JSON = "json:"
"""Before the name of a field of a sample's JSON, where a recipe names columns."""
MAX_TEXT_BYTES = 2_000_000
_TEXTS = tuple(ending for ending in CAPTIONS if ending != ".json")

Sizes = Mapping[str, int]
"""The size of each file of a sample, by what follows the first dot of its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Which files of a sample are read.

    Attributes:
        image: the picture.
        texts: caption files, the caption first.
        notes: the JSON.
    """

    image: str
    texts: tuple[str, ...]
    notes: str | None

    @property
    def files(self) -> set[str]:
        """All that is read."""
        return {self.image, *self.texts, *([self.notes] if self.notes else [])}


def reading_of(
    key: str,
    sizes: Sizes,
    *,
    image_columns: Sequence[str] | None,
    caption_columns: Sequence[str] | None,
    max_image_bytes: int,
) -> Reading | Problem:
    """Which files of a sample are its picture, captions and notes, or why it has none.

    A file without a dot in its extension comes first (`0.jpg`, by the order of the endings), else
    the only one of its kind (`0.input.jpg`); `0.a.jpg` and `0.b.jpg` are not chosen between.
    """
    image = _image(key, sizes, image_columns)
    if isinstance(image, Problem):
        return image
    if caption_columns is None:
        texts = _of_kind(sizes, _TEXTS)
        if len(texts) > 1:
            detail = f"{' and '.join(texts)}: caption_columns says which of them is the caption"
            return Problem(reason="ingest-no-caption", detail=detail)
    else:
        texts = [name for name in caption_columns if name in sizes]
    notes = _of_kind(sizes, [".json"])
    found = Reading(image=image, texts=tuple(texts), notes=notes[0] if len(notes) == 1 else None)
    return _too_large(found, sizes, max_image_bytes) or found


def _image(key: str, sizes: Sizes, wanted: Sequence[str] | None) -> str | Problem:
    there = ", ".join(sorted(sizes))
    if wanted is not None:
        named = [name for name in wanted if name in sizes]
        detail = f"there is no {' or '.join(wanted)} among {there}"
        return named[0] if named else Problem(reason="ingest-no-image", detail=detail)
    found = _of_kind(sizes, pictures())
    if len(found) == 1:
        return found[0]
    if found:
        detail = (
            f"{', '.join(f'{key}.{kind}' for kind in found)}: the key ends at the first dot, so"
            " that these are one sample: name its picture in image_columns, or rename the files"
        )
        return Problem(reason="ingest-dotted-key", detail=detail)
    remedies = [
        f"; pip install 'anymix[{extra.name}]' reads {kind}"
        for extra in EXTRAS
        for kind in _of_kind(sizes, extra.endings)
    ]
    detail = f"there is no picture among {there}{''.join(remedies)}"
    return Problem(reason="ingest-no-image", detail=detail)


def _of_kind(kinds: Iterable[str], endings: Sequence[str]) -> list[str]:
    """The kind with one of the endings and nothing before it, or all that end so."""
    kinds = list(kinds)
    exact = [ending[1:] for ending in endings if ending[1:] in kinds]
    return exact[:1] or [kind for kind in kinds if f".{kind.rpartition('.')[2]}" in endings]


def _too_large(reading: Reading, sizes: Sizes, max_image_bytes: int) -> Problem | None:
    limits = {
        reading.image: ("ingest-image-too-large", max_image_bytes),
        **dict.fromkeys(reading.texts, ("ingest-caption-too-long", MAX_TEXT_BYTES)),
        **({reading.notes: ("ingest-metadata-too-large", MAX_TEXT_BYTES)} if reading.notes else {}),
    }
    for kind, (reason, limit) in limits.items():
        if sizes[kind] > limit:
            detail = f"{sizes[kind]} bytes of {kind}, allowed are {limit}"
            return Problem(reason=reason, detail=detail)
    return None


def parse_notes(content: bytes) -> dict[str, Any] | Problem:
    """The fields of a sample's JSON; a list in it is a list of captions."""
    try:
        found = json.loads(decode_text(content).text)
    except (ValueError, RecursionError) as error:
        return Problem(reason="ingest-metadata-malformed", detail=f"no JSON: {error}")
    if isinstance(found, str | list):
        return {"captions": found}
    if not isinstance(found, dict):
        detail = f"the JSON is {kind_of(found)}, not an object or a list of captions"
        return Problem(reason="ingest-metadata-malformed", detail=detail)
    return found


def captions_in(
    texts: Mapping[str, bytes], notes: Mapping[str, Any] | None, columns: Sequence[str] | None
) -> Captions | Problem:
    """The captions of a sample: its one caption file, or else its notes' known names.

    Args:
        texts: caption files by their kind.
        notes: the fields of its JSON; None where it has none.
        columns: kinds of files, or fields after `JSON`, as the recipe names them.
    """
    if columns is None:
        if texts:
            ((_, content),) = texts.items()
            return Captions(caption=as_text(content), more={})
        if notes is not None:
            return named_captions(notes)
        detail = "there is no txt, caption or json"
        return Problem(reason="ingest-no-caption", detail=detail)
    row: dict[str, object] = {}
    for name in columns:  # `caption` and `json:caption` are two places of one name
        field = name.removeprefix(JSON)
        value = texts.get(name) if field == name else (notes or {}).get(field)
        row[field] = value if row.get(field) is None else [row[field], value]
    if all(value is None for value in row.values()):
        detail = f"there is no {' or '.join(columns)}"
        return Problem(reason="ingest-no-caption", detail=detail)
    return captions_of(row, list(row))
