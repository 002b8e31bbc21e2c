"""How a server wants to be asked, and what is to be changed when it refuses: pure functions.

OpenAI's API has grown, and each server takes another part of it (`docs/servers.md`). What the
recipe says of it is where a run begins; what a server refuses is left out, or put otherwise, from
then on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.synthesis.backends import errors
from pipeline.synthesis.backends.settings import EndpointSettings
from pipeline.synthesis.prompts import Message, compact_json

_BOUNDS = {"pattern", "minimum", "maximum"}
"""What a schema says of a value beyond its type; the critics see to the same."""

_ECHOES = {"input", "ctx", "url", "failed_generation"}
"""Fields of an error that repeat the request, or what the LLM has written."""

_REFUSES = re.compile(
    r"unsupported|(not|n't) (be )?(support|permitted|allowed|recogni|specified)"
    r"|unknown|unrecogni[sz]ed|unexpected|extra|only .*(allowed|supported)|deprecated"
)
_SYSTEM_ROLE = re.compile(
    r"system.{0,3} (role|message|prompt|instruction)|role.{0,20}system|developer instruction"
    r"|roles must alternate"
)
_BOUND_WORDS = re.compile(
    r"\b(pattern|regex|regular expression|grammar|minimum|maximum|keyword)\b|(invalid|json) schema"
)
_FORMAT_WORDS = re.compile(
    r"response_format|json_schema|json_object|json mode|structured.?output|schema|grammar"
)


def request_body(endpoint: EndpointSettings, row: Mapping[str, Any]) -> dict[str, Any]:
    """What a request says, as the endpoint wants it.

    Args:
        endpoint: how it wants to be asked.
        row: a request, with `messages` and `sampling_params`.
    """
    sampling = row["sampling_params"]
    schema = json.loads(sampling["structured_outputs"]["json"])
    messages = list(row["messages"])
    if endpoint.response_format != "json_schema":
        messages = _with_instruction(messages, without_bounds(schema))
    if not endpoint.system_role:
        messages = _without_system_role(messages)
    kept = [name for name in ("temperature", "top_p", "seed") if name not in endpoint.drop_params]
    body = {"messages": messages, endpoint.max_tokens_parameter: sampling["max_tokens"]}
    body |= {name: sampling[name] for name in kept}
    match endpoint.response_format:
        case "json_schema":
            sent = schema if endpoint.schema_bounds else without_bounds(schema)
            form = {"name": "answer", "strict": True, "schema": sent}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        case "json_object":
            body["response_format"] = {"type": "json_object"}
    return body


def learn(endpoint: EndpointSettings, refusal: object) -> dict[str, Any]:
    """What to change in the endpoint's settings after an error; empty where nothing would help.

    Args:
        endpoint: how the server was asked.
        refusal: the body of its error: JSON, or text.
    """
    said = all_words(refusal).lower()
    if errors.is_of_the_request(said):
        return {}
    if _REFUSES.search(said):
        other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
        used = endpoint.max_tokens_parameter
        if _names(said, used):
            return {"max_tokens_parameter": other[used]}
        for name in ("seed", "top_p", "temperature"):
            if _names(said, name) and name not in endpoint.drop_params:
                return {"drop_params": (*endpoint.drop_params, name)}
    if endpoint.system_role and _SYSTEM_ROLE.search(said):
        return {"system_role": False}
    return _other_format(endpoint, said)


def all_words(refusal: object) -> str:
    """What an error says in all its fields, without what repeats the request.

    A page of a gateway says nothing of the request.
    """
    said = " ".join(_words(refusal))
    return "" if said.lstrip().startswith("<") else said


def without_bounds(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """A JSON schema with types and names alone."""
    if not isinstance(schema, dict):
        return schema
    return {
        name: {key: without_bounds(each) for key, each in value.items()}
        if name == "properties"
        else value
        for name, value in schema.items()
        if name not in _BOUNDS
    }


def _other_format(endpoint: EndpointSettings, said: str) -> dict[str, Any]:
    """The next of the formats, from the strictest on; a schema loses its bounds first."""
    if endpoint.response_format == "json_schema":
        if endpoint.schema_bounds and _BOUND_WORDS.search(said):
            return {"schema_bounds": False}
        if _FORMAT_WORDS.search(said):
            return {"response_format": "json_object"}
    elif endpoint.response_format == "json_object" and _FORMAT_WORDS.search(said):
        return {"response_format": "none"}
    return {}


def _names(said: str, parameter: str) -> bool:
    return re.search(rf"\b{parameter}\b", said) is not None


def _words(value: object) -> Iterator[str]:
    """Every text in the body of an error, but those that repeat the request."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            if name not in _ECHOES:
                yield from _words(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _words(each)
    elif isinstance(value, str):
        yield value


def _with_instruction(messages: Sequence[Message], schema: Any) -> list[Message]:  # noqa: ANN401
    """The chat, whose first message asks for JSON: `json_object` wants the word in the prompt."""
    first, *others = messages
    asked = f"{first['content']}\nAnswer with one JSON object and nothing else, by this schema: "
    return [{**first, "content": asked + compact_json(schema)}, *others]


def _without_system_role(messages: Sequence[Message]) -> list[Message]:
    """The chat with the system's words at the start of the user's first message."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    first, *others = [message for message in messages if message["role"] != "system"]
    return [{**first, "content": "\n\n".join([*system, first["content"]])}, *others]
