"""YAML that a person wrote, read strictly: what it could mean otherwise is an error with its line.

Numbers are those of YAML 1.2: no `1:30` for 90, no `010` for 8, and no dates; these are texts, and
the setting says whether it takes a text. `yes`, `no`, `on` and `off` stay truth values, as people
write them for such.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import UserError
from pipeline.text_files import read_text

_MAX_CHARACTERS = 1_000_000
_MAX_VALUES = 100_000
"""Ours: a thousand times what a long recipe has. Aliases of aliases would be billions."""
_NAMES = {"bool": "a truth value", "int": "a number", "float": "a number", "null": "nothing"}
"""What a value is read as, by the end of its tag."""


class _Loader(yaml.SafeLoader):
    """PyYAML's, without the numbers of YAML 1.1."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way
        sign: [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag.rpartition(":")[2] in {"bool", "null", "merge"}
        ]
        for sign, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)\Z"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"((?=[^.eE]*[.eE])[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z"
    ),
    list("-+0123456789."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a YAML file says.

    Attributes:
        content: its mappings, lists and values.
        node: where they are in the file; None for an empty one.
    """

    content: Any
    node: yaml.Node | None


class WrongYamlError(ValueError):
    """Text that is not YAML, or that could be taken in two ways; `line` counts from 1."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


def read_yaml(path: Path) -> Document:
    """What a YAML file says.

    Raises:
        UserError: naming the file, the line and what is wrong there.
    """
    text = read_text(path, max_bytes=4 * _MAX_CHARACTERS)
    try:
        return parse_yaml(text)
    except WrongYamlError as error:
        raise UserError(f"{path}:{error.line}: {error}") from error


def parse_yaml(text: str) -> Document:
    """What a text in YAML says.

    Raises:
        WrongYamlError: saying where and why.
    """
    if len(text) > _MAX_CHARACTERS:
        raise WrongYamlError(
            1, f"a text of over {_MAX_CHARACTERS:,} characters is too long for a recipe"
        )
    try:
        documents = list(yaml.compose_all(text, Loader=_Loader))
        if len(documents) > 1:
            what = "a second document is here, after `---`; a file holds one"
            raise WrongYamlError(documents[1].start_mark.line + 1, what)
        if not documents:
            return Document(content=None, node=None)
        (node,) = documents
        for way, mapping in _mappings(node):
            _check_keys(way, mapping)
        return Document(content=_Loader("").construct_document(node), node=node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(filter(None, (error.context, error.problem)))
        if "'\\t'" in problem:
            problem = "a tab; YAML indents with spaces"
        line = mark.line + 1 if mark else 1
        raise WrongYamlError(line, f"the text is not YAML: {problem}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"the text is not YAML: it holds the character U+{error.character:04X}"
        raise WrongYamlError(line, what) from error
    except RecursionError as error:
        raise WrongYamlError(1, "the text is nested too deeply") from error


def misread(node: yaml.Node | None) -> str | None:
    """What a value is taken for that would be a text in quotes, in words; None for another."""
    if not isinstance(node, yaml.ScalarNode) or node.style is not None or node.tag.endswith(":str"):
        return None
    kind = _NAMES.get(node.tag.rpartition(":")[2], "another kind of value")
    return f"{node.value}, which YAML reads as {kind}; a text has quotes: {node.value!r}"


def _mappings(root: yaml.Node) -> Iterator[tuple[tuple[str, ...], yaml.MappingNode]]:
    """Every mapping, once, and the keys that lead to it.

    An error where aliases lead in a circle or to too many values.
    """
    sizes: dict[int, int | None] = {}

    def size_of(node: yaml.Node, way: tuple[str, ...]) -> int:
        """How many values a node has when each alias is replaced by what it means."""
        known = sizes.get(id(node), 0)
        if known is None:
            raise WrongYamlError(node.start_mark.line + 1, "an alias leads back to itself")
        if known:
            return known
        sizes[id(node)] = None
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        size = 1
        for number, child in enumerate(children):
            if isinstance(child, tuple):
                key, value = child
                size += size_of(key, way) + size_of(value, (*way, str(key.value)))
            else:
                size += size_of(child, (*way, str(number)))
        if isinstance(node, yaml.MappingNode):
            mappings.append((way, node))
        if size > _MAX_VALUES:
            what = f"with its aliases this has over {_MAX_VALUES:,} values"
            raise WrongYamlError(node.start_mark.line + 1, what)
        sizes[id(node)] = size
        return size

    mappings: list[tuple[tuple[str, ...], yaml.MappingNode]] = []
    size_of(root, ())
    return iter(mappings)


def _check_keys(way: Sequence[str], mapping: yaml.MappingNode) -> None:
    """See that the keys of a mapping are texts, each once; `way` leads to it."""
    lines: dict[str, int] = {}
    for key, _ in mapping.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise WrongYamlError(line, "a list or a mapping cannot be a key")
        if not key.tag.endswith((":str", ":merge")):
            raise WrongYamlError(line, f"a key should be a text (found {misread(key)})")
        if key.value in lines:
            field = ".".join([*way, key.value])
            what = f"{field}: the key is there twice, in line {lines[key.value]} and here"
            raise WrongYamlError(line, what)
        lines[key.value] = line
