"""Several captions of one record: the first is the caption, the others keep their names.

A cell may hold a text, a list of texts (as such or spelled out in JSON), one text a language,
objects with a text among notes (COCO, Flickr30k), or the turns of a chat about the picture.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.sources import known_names
from pipeline.sources.files import Problem, as_text, kind_of, plain

_QUOTED = r"""(?:'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")"""
_PRINTED = re.compile(_QUOTED)
_PRINTED_LIST = re.compile(rf"\[\s*{_QUOTED}(?:[\s,]+{_QUOTED})*[\s,]*\]")
"""`['a', 'b']`, which pandas writes into a CSV for a list, and `['a' 'b']` for an array."""
_IMAGE_MARK = "<image>"
"""What stands for the picture in LLaVA's turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Captions:
    """What a record says.

    Attributes:
        caption: its text, or bytes for ingest to decode.
        more: further texts by the column or language that they are from.
    """

    caption: str | bytes
    more: Mapping[str, str | bytes]


def captions_of(row: Mapping[str, object], columns: Sequence[str]) -> Captions | Problem:
    """The texts of the columns that a recipe names: the first with a text is the caption.

    A null among several is no fault; a row without any text is, and so is a cell of numbers.
    """
    found = [each for column in columns for each in _named(column, row.get(column))]
    wrong = next((each for each in found if not isinstance(each[1], str | bytes)), None)
    if wrong is not None:
        return _wrong_type(*wrong)
    return _gathered(found) or _without(f"no text in {plain(', '.join(columns)) or 'any column'}")


def named_captions(row: Mapping[str, object]) -> Captions | Problem:
    """The texts of the columns that are captions by their names, where a recipe names none.

    The first known name decides: where it holds no text there is no caption, whatever the other
    columns hold, since a title or a prompt in its place would be another thing in a few rows.
    """
    columns = known_names.caption_columns(row)
    if not columns:
        return _without(f"no column is a caption by its name: {plain(', '.join(row))}")
    texts, others = (
        [each for name in names for each in _named(name, row[name])]
        for names in (columns[:1], columns[1:])
    )
    wrong = next((each for each in texts if not isinstance(each[1], str | bytes)), None)
    if wrong is not None:
        return _wrong_type(*wrong)
    if _gathered(texts) is None:
        return _without(f"{plain(columns[0])} holds no text")
    return _gathered(texts + others) or _without("")


def _gathered(found: Sequence[tuple[str, object]]) -> Captions | None:
    """The texts that say something, each under a name of its own; None where none does."""
    texts: list[tuple[str, str | bytes]] = []
    for name, value in found:
        text = as_text(value) if isinstance(value, str | bytes) else ""
        text = text.strip() if isinstance(text, str) else text
        if text:
            texts.append((plain(name), text))
    if not texts:
        return None
    more: dict[str, str | bytes] = {}
    for name, text in texts[1:]:
        taken = sum(other == name or other.startswith(f"{name}-") for other in more)
        more[f"{name}-{taken + 1}" if name in more else name] = text
    return Captions(caption=texts[0][1], more=more)


def _without(detail: str) -> Problem:
    return Problem(reason="ingest-no-caption", detail=detail)


def _wrong_type(name: str, value: object) -> Problem:
    detail = f"{plain(name)} is {kind_of(value)}, not text"
    return Problem(reason="ingest-wrong-type", detail=detail)


def _named(name: str, cell: object) -> Iterator[tuple[str, object]]:
    """The texts of a cell, each with its name; nulls are left out."""
    if isinstance(cell, str) and cell.lstrip().startswith(("[", "{")):
        cell = _spelled_out(cell)
    if isinstance(cell, list) and cell and all(isinstance(pair, tuple) for pair in cell):
        cell = dict(cell)  # so Arrow gives a map
    if isinstance(cell, list):
        cell = [_said(turn) for turn in cell if _said(turn)] if _is_chat(cell) else cell
        for number, value in enumerate(cell):
            yield from _named(f"{name}-{number}" if number else name, value)
    elif isinstance(cell, Mapping):
        for key in _keys_of_texts(cell) or cell:
            yield from _named(str(key), cell[key])
    elif cell is not None and cell == cell:  # noqa: PLR0124 - NaN, which pandas writes for null
        yield name, cell


def _keys_of_texts(cell: Mapping[str, object]) -> Sequence[str]:
    return known_names.caption_columns(cell) or known_names.texts_inside(cell)


def _spelled_out(text: str) -> object:
    """The list or object that a cell of a CSV spells out in JSON, or a list as Python prints it.

    The text itself where it is a text.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _printed(text)
    is_list = isinstance(value, list) and value and all(isinstance(e, str | dict) for e in value)
    is_object = isinstance(value, dict) and _keys_of_texts(value)
    return value if is_list or is_object else text


def _printed(text: str) -> object:
    if not _PRINTED_LIST.fullmatch(text.strip()):
        return text
    try:
        return [ast.literal_eval(quoted) for quoted in _PRINTED.findall(text)]
    except (ValueError, SyntaxError):  # `\\x` without its digits
        return text


def _is_chat(cell: Sequence[object]) -> bool:
    """Whether a list holds turns as ShareGPT and LLaVA (`from`) or OpenAI (`role`) write them."""
    return bool(cell) and all(isinstance(turn, Mapping) and _role(turn) for turn in cell)


def _role(turn: Mapping[str, object]) -> str:
    role = turn.get("from", turn.get("role"))
    return role.strip().casefold() if isinstance(role, str) else ""


def _said(turn: Mapping[str, object]) -> str:
    """What an assistant's turn says, which may be a list of parts; nothing for another's turn."""
    if _role(turn) not in known_names.ASSISTANTS:
        return ""
    content = turn.get("value", turn.get("content"))
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    return (
        "\n".join(text for text in texts if isinstance(text, str)).replace(_IMAGE_MARK, "").strip()
    )
