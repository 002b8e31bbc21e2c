"""Finds the JSON object in what an LLM has written, whatever is around it: a pure function.

A server that holds the LLM to the schema sends the object alone. Others put it after a
`<think>` block, into a code fence, between sentences, into a list or another object. Only the
standard library: a library that repairs JSON also completes what was cut off, and makes texts up.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any

_THOUGHT = r"(?:seed:)?(?:think|thinking|thought|reasoning|reflection)"
_END_OF_THOUGHT = re.compile(
    rf"</{_THOUGHT}>|\[/THINK\]|<\|channel\|>final<\|message\|>", re.IGNORECASE
)
_THOUGHT_WITHOUT_END = re.compile(rf"(?:<{_THOUGHT}>|\[THINK\]).*", re.IGNORECASE | re.DOTALL)

_DECODER = json.JSONDecoder(strict=False)  # a line break inside a string is a common slip

_MAX_TRIES = 64
"""Braces in prose that are looked at; a hostile answer has millions."""

_MAX_LITERAL = 4096
"""Characters that are read as Python's: a longer text could nest deeper than its parser goes."""

_MAX_DEPTH = 3
"""How deep the object may lie in others."""

_UNREADABLE = (ValueError, RecursionError)


def without_thoughts(text: str) -> str:
    """What an LLM has answered after its reasoning; nothing where the reasoning has no end."""
    *_, rest = _END_OF_THOUGHT.split(text)
    return _THOUGHT_WITHOUT_END.sub("", rest).strip().removeprefix("\ufeff").strip()


def find_object(text: str, names: Collection[str]) -> dict[str, Any] | None:
    """The first JSON object of an answer that has one of some keys.

    Args:
        text: the answer.
        names: the keys that were asked for, in lower case.

    Returns:
        The object's values under those of the names that it has, whatever their case; empty where
        there are only other objects; None where there is no object.
    """
    others: dict[str, Any] | None = None
    for value in _values(text):
        if found := _search(value, names, _MAX_DEPTH):
            return found
        if isinstance(value, dict):
            others = {}
    return others


def _values(text: str) -> Iterator[Any]:
    """What can be read as JSON in a text: the whole, else each object in it, else Python's."""
    with suppress(*_UNREADABLE):
        whole = json.loads(text)
        yield whole
        text = whole if isinstance(whole, str) else text  # JSON that was made to JSON once more
    answer = without_thoughts(text)
    start = answer.find("{")
    first = start
    for _ in range(_MAX_TRIES):
        if start < 0:
            break
        try:
            value, end = _DECODER.raw_decode(answer, start)
        except _UNREADABLE:
            end = start + 1
        else:
            yield value
        start = answer.find("{", end)
    if first >= 0:
        yield _python_literal(answer[first : answer.rfind("}") + 1])


def _python_literal(text: str) -> Any:  # noqa: ANN401 - whatever it says
    """An object with single quotes or a comma behind its last value, as Python reads it."""
    if len(text) > _MAX_LITERAL:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know
            return ast.literal_eval(text)
    except (SyntaxError, MemoryError, TypeError, *_UNREADABLE):
        return None


def _search(value: Any, names: Collection[str], depth: int) -> dict[str, Any]:  # noqa: ANN401
    if isinstance(value, dict):
        named = {key.strip().lower(): each for key, each in value.items() if isinstance(key, str)}
        if found := {name: named[name] for name in names if name in named}:
            return found
        value = list(value.values())
    if not isinstance(value, list) or not depth:
        return {}
    return next(filter(None, (_search(each, names, depth - 1) for each in value)), {})
