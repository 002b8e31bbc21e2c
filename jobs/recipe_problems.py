"""What is wrong with a recipe, in words: file, line, field, what was found and what is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml

from filters.settings import CLIP_KINDS
from pipeline.settings import Settings
from pipeline.sources import SOURCE_KINDS
from pipeline.yaml_files import misread
from tokenizer_cache.audio.settings import AUDIO_TOKENIZER_KINDS
from tokenizer_cache.settings import IMAGE_TOKENIZER_KINDS

_UNION_MEMBERS = {
    **SOURCE_KINDS, **IMAGE_TOKENIZER_KINDS, **AUDIO_TOKENIZER_KINDS, **CLIP_KINDS
}  # fmt: skip

_MAY_BE_SECRET = {"api_key_env", "base_url"}
"""Where a person may have written the key itself: an error does not show what it found there."""

_LISTS = ("list_type", "tuple_type")
_SECTIONS = ("dict_type", "model_type", "model_attributes_type")
_IN_WORDS = {
    **dict.fromkeys(_LISTS, "Input should be a list: [one, two]"),
    **dict.fromkeys(_SECTIONS, "Input should be a section of `key: value` lines"),
    "string_type": "Input should be a text",
    "missing": "it has to be given: there is no default",
    "union_tag_not_found": "it has to be given",
}
"""What pydantic says in words of Python."""

_MAX_SHOWN = 200
"""Characters of what was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problems:
    """Puts the problems of a recipe in words.

    Attributes:
        model: the settings of a whole recipe.
        path: the file.
        node: what it says, with the lines.
        changes: what `--set` has changed.
        of_file: the problems that the file has without the changes.
    """

    model: type[Settings]
    path: Path
    node: yaml.Node | None
    changes: Sequence[str]
    of_file: frozenset[tuple[Any, ...]] = frozenset()

    def describe(self, problem: Any) -> str:  # noqa: ANN401 - pydantic's
        """One line for one problem: file, line, field, what was found and what is allowed."""
        location = problem["loc"]
        if problem["type"].startswith("union_tag_") or problem["type"].endswith("_kind"):
            # Pydantic names the section whose kind is wrong.
            location = (*location, "kind")
        line, way, node = _find(self.node, location)
        field = ".".join(map(str, way))
        made_by = self._made_by(problem, field)
        place = f"{made_by or f'{self.path}:{line}'}: {field}"
        if problem["type"] == "extra_forbidden":
            allowed = ", ".join(_model_at(self.model, problem["loc"][:-1]).model_fields)
            return f"{place}: there is no such setting. Allowed here: {allowed}."
        if problem["type"].startswith("union_tag_"):
            given = problem["ctx"].get("tag")
            said = _IN_WORDS["union_tag_not_found"] if given is None else f"there is no {given!r}"
            return f"{place}: {said}. Allowed here: {', '.join(SOURCE_KINDS)}."
        message = _IN_WORDS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
        found = problem["input"]
        if problem["type"] == "missing" or isinstance(found, dict) or way[-1] in _MAY_BE_SECRET:
            return f"{place}: {message}"
        shown = repr(found) if len(repr(found)) <= _MAX_SHOWN else f"{repr(found)[:_MAX_SHOWN]}…"
        if problem["type"] == "string_type" and not made_by:
            shown = misread(node) or shown
        return f"{place}: {message} (found {shown})"

    def _made_by(self, problem: Any, field: str) -> str:  # noqa: ANN401 - pydantic's
        """The changes that have made a problem; empty where the file has it."""
        keys = {each: each.partition("=")[0] for each in self.changes}
        here = [each for each, key in keys.items() if f"{field}.".startswith(f"{key}.")]
        if here:
            return here[-1]
        if not self.changes or (problem["loc"], problem["type"]) in self.of_file:
            return ""
        below = [each for each, key in keys.items() if key.startswith(f"{field}.")]
        return ", ".join(below or self.changes)


def truths_for_numbers(
    content: Any,  # noqa: ANN401 - whatever a recipe holds
    found: Any,  # noqa: ANN401
    way: tuple[str | int, ...] = (),
) -> Iterator[dict[str, Any]]:
    """Where a recipe says `yes` for a number, which pydantic takes for 1; as its own problems.

    Args:
        content: what the recipe says.
        found: the settings that pydantic has made of it.
        way: where both are.
    """
    if isinstance(content, bool) and type(found) in {int, float}:
        message = "Input should be a number"
        yield {"loc": way, "type": "number", "msg": message, "input": content}
    elif isinstance(content, dict) and isinstance(found, Settings | dict):
        for key, value in content.items():
            there = getattr(found, key) if isinstance(found, Settings) else found.get(key)
            yield from truths_for_numbers(value, there, (*way, key))
    elif isinstance(content, list) and isinstance(found, list | tuple):
        for index, pair in enumerate(zip(content, found, strict=False)):
            yield from truths_for_numbers(*pair, (*way, index))


def _find(
    node: yaml.Node | None, location: Sequence[str | int]
) -> tuple[int, list[str | int], yaml.Node | None]:
    """The line of the deepest node on the way, the way as the file's keys, and the last node."""
    line, way = 1, list[str | int]()
    for name in location:
        is_source = name in SOURCE_KINDS and way[:1] == ["sources"] and len(way) == 2
        is_image = name in IMAGE_TOKENIZER_KINDS and way == ["image_tokenizer"]
        is_clip = name in CLIP_KINDS and way == ["score", "clip"]
        if is_source or is_image or is_clip or name in AUDIO_TOKENIZER_KINDS:
            continue  # pydantic names the member of the union here; the file has no such key
        if name == "[key]":
            continue  # pydantic's word for "the key itself is wrong"
        way.append(name)
        mark, node = _step(node, name)
        line = mark if mark is not None else line
    return line, way, node


def _step(node: yaml.Node | None, name: str | int) -> tuple[int | None, yaml.Node | None]:
    """The line and the node of one entry of a node, where it has that entry."""
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):  # what is merged comes first, and counts less
            if key.value == str(name):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(name, int) and name < len(node.value):
        return node.value[name].start_mark.line + 1, node.value[name]
    return None, None


def _model_at(model: type[Settings], location: Sequence[str | int]) -> type[Settings]:
    """The settings model of a section of the recipe, by pydantic's location."""
    for name in location:
        if name in _UNION_MEMBERS:
            model = _UNION_MEMBERS[str(name)]
        elif name in model.model_fields:
            annotation = model.model_fields[str(name)].annotation
            for candidate in (annotation, *get_args(annotation)):
                if isinstance(candidate, type) and issubclass(candidate, Settings):
                    model = candidate
    return model
