"""The objects of a JSON file that is not one a line: an array, or objects one after the other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence

from pipeline.sources.files import Problem

_BETWEEN = re.compile(r"[\s,]*")
_START = re.compile(r"\s*\[[\s,]*")
_LAID_OUT = re.compile(r"\s*(\[\s*[{\]]|\{[^\S\r\n]*[\r\n])")
_KINDS = {list: "array", str: "text", int: "number", float: "number", bool: "truth value"}
_BLOCK_CHARACTERS = 1 << 20
_MAX_VALUE_CHARACTERS = 1 << 26
"""Ours: a value has at most 64 Mi characters, so that no file can fill the memory."""


def are_values(start: str, suffix: str) -> bool:
    """Whether a file's objects are where they please, by how it starts; else each is a line."""
    return bool(_LAID_OUT.match(start)) or (suffix == ".json" and start.lstrip().startswith("["))


def values_of(
    read: Callable[[int], str], *, is_array: bool, at_start: bool
) -> Iterator[tuple[str | Problem, Sequence[str]]]:
    """The text of each value, with all characters up to its end that no value before it took.

    Args:
        read: gives up to so many characters, and none at the end.
        is_array: whether the values are those of an array, which has to be closed.
        at_start: whether the first character is the file's first, not one behind a value.
    """
    decoder = json.JSONDecoder()
    text, at, is_whole = "", 0, False
    between = _START if at_start and is_array else _BETWEEN
    while True:
        match = between.match(text, at)
        start = match.end() if match else at
        fault = "not JSON: the array is not closed; the file may be cut off"
        if text.startswith("]", start):
            rest = (text[start + 1 :] + read(_BLOCK_CHARACTERS)).strip()
            if rest:
                yield _malformed(f"not JSON: {rest[:40]!r} follows the array"), [text[at:]]
            return
        if start < len(text):
            try:
                _, end = decoder.raw_decode(text, start)
            except (ValueError, RecursionError) as error:
                fault = f"{json_fault(error, start)}; what follows is not read"
            else:
                yield text[start:end], [text[at:end]]
                at, between = end, _BETWEEN
                continue
        elif is_whole and not is_array:
            return
        if is_whole or len(text) - at > _MAX_VALUE_CHARACTERS:
            yield _malformed(fault), [text[at:]]
            return
        # Twice as much each time: a long value is not looked at over and over.
        block = read(max(_BLOCK_CHARACTERS, len(text) - at))
        text, at, is_whole = text[at:] + block, 0, not block


def parse_json(text: str) -> dict[str, object] | Problem:
    """The object in a row, or why there is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return _malformed(json_fault(error))
    if isinstance(value, dict):
        return value
    return _malformed(f"the row is a JSON {_KINDS.get(type(value), 'null')}, not an object")


def json_fault(error: ValueError | RecursionError, start: int = 0) -> str:
    """What is wrong with a JSON text; Python's words count lines from the start of a row."""
    if isinstance(error, RecursionError):
        return "not JSON: it is nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at character {error.pos - start}"
    return f"not JSON: {error}"


def _malformed(detail: str) -> Problem:
    return Problem(reason="ingest-row-malformed", detail=detail)
