"""Several captions of one record: the first is the caption, the others keep their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.sources.files import Problem, as_text, plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Captions:
    """What a record says.

    Attributes:
        caption: its text, or bytes that are no UTF-8.
        more: further texts by the column or language that they are from.
    """

    caption: str | bytes
    more: Mapping[str, str | bytes]


def captions_of(row: Mapping[str, object], columns: Sequence[str]) -> Captions | Problem:
    """The texts of some columns, in their order; a cell may hold one, a list, or one a language.

    A null among several is no fault; a row without any text is, and so is a cell of numbers.
    """
    found: list[tuple[str, str | bytes]] = []
    for column in columns:
        for name, text in _named(column, row.get(column)):
            if not isinstance(text, str | bytes):
                detail = f"{plain(name)} is {type(text).__name__}, not text"
                return Problem(reason="ingest-wrong-type", detail=detail)
            stripped = text.strip()
            found.append((plain(name), as_text(stripped)))
    texts = [(name, text) for name, text in found if text] or found[:1]
    if not texts:
        detail = f"no text in {plain(', '.join(columns)) or 'any column'}"
        return Problem(reason="ingest-no-caption", detail=detail)
    more: dict[str, str | bytes] = {}
    for name, text in texts[1:]:
        taken = sum(other == name or other.startswith(f"{name}-") for other in more)
        more[f"{name}-{taken + 1}" if name in more else name] = text
    return Captions(caption=texts[0][1], more=more)


def _named(name: str, cell: object) -> Iterator[tuple[str, object]]:
    """The texts of a cell, each with its name; nulls are left out."""
    if isinstance(cell, Mapping):
        for key, value in cell.items():
            yield from _named(str(key), value)
    elif isinstance(cell, list):
        for number, value in enumerate(cell):
            yield from _named(f"{name}-{number}" if number else name, value)
    elif cell is not None:
        yield name, cell
