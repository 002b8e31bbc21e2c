"""From the body of a chat completion to an answer: pure functions.

OpenAI's reference says which fields there are; each of them is null, missing or of another type
with some server. Only what is needed has to be there: a choice with a message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipeline.synthesis.backends import errors
from pipeline.text_files import decode_text, undecodable

_CUT_OFF = {"length", "max_tokens", "max_output_tokens", "model_length"}
_FILTERED = {
    "content_filter", "content_filtered", "refusal", "safety", "prohibited_content", "blocklist",
    "recitation",
}  # fmt: skip
_FAILED = "error"
"""The finish reason of a router whose provider has broken off."""
_REASONING = ("reasoning_content", "reasoning")

_TAGS = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_MAX_PAGE = 4096  # of a page that is looked at: many open tags take a time that is quadratic
_MAX_SHOWN = 120  # characters of a body that is no completion

_FAILED_TO_SERVE = 500
_STATUSES = range(400, 600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens that a server has counted; None where it does not say."""

    num_prompt_tokens: int | None = None
    num_output_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What is read of a chat completion.

    Attributes:
        text: the answer; empty where there is none.
        reasoning: what the LLM wrote before it, where the server tells.
        refusal: why the LLM or its server would not answer; empty where it did.
        finish_reason: `length` when the answer had used up its tokens, else the server's own word.
        usage: what it cost.
    """

    text: str
    reasoning: str = ""
    refusal: str = ""
    finish_reason: str | None = None
    usage: Usage = Usage()


class MalformedError(ValueError):
    """A body that is no chat completion."""


class ServedError(Exception):
    """An error that came as if it were an answer, with status 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def read_completion(body: bytes) -> Completion:
    """The answer that a body holds.

    Raises:
        MalformedError: when it holds none.
        ServedError: when it holds an error instead.
    """
    whole = unwrapped(_read_json(body))
    if not isinstance(whole, dict):
        raise MalformedError(f"the response is not a JSON object{_start_of(body)}")
    choice = _first(whole.get("choices"))
    finish_reason = _plain(choice.get("finish_reason")) or None
    word = (finish_reason or "").lower()
    error = whole.get("error") or choice.get("error")
    if error or whole.get("object") == "error" or word == _FAILED:
        raise _served_error(error or whole)
    is_filtered = word.partition(":")[0] in _FILTERED  # Gemini: `content_filter: SAFETY`
    message = choice.get("message")
    if is_filtered and message is None:  # Azure has none then
        message = {}
    if not isinstance(message, dict):
        raise MalformedError(f"the response has no choice with a message{_start_of(body)}")
    refusal = _plain(message.get("refusal"))
    if not refusal and is_filtered:
        refusal = f"finish_reason {finish_reason}"
    return Completion(
        text=_answer_of(message),
        reasoning="".join(_plain(message.get(name)) for name in _REASONING),
        refusal=refusal,
        finish_reason="length" if word in _CUT_OFF else finish_reason,
        usage=_usage_of(whole),
    )


def words_of_error(error: object) -> str:
    """What a person should see of an error's body: its message and code, else all of it."""
    error = unwrapped(error)
    if isinstance(error, Mapping):
        error = error.get("error") or _first(error.get("choices")).get("error") or error
    if isinstance(error, str):
        return _without_tags(error) if error.lstrip().startswith("<") else error
    named = error if isinstance(error, Mapping) else {}
    message, code = named.get("message"), named.get("code")
    if not isinstance(message, str) or "metadata" in named:  # of a provider behind a router
        return json.dumps(error, ensure_ascii=False)
    return f"{message} ({code})" if isinstance(code, str) else message


def unwrapped(whole: Any) -> Any:  # noqa: ANN401 - JSON
    """The object in a list of one: Gemini's errors come so."""
    return (_first(whole) or whole) if isinstance(whole, list) and len(whole) == 1 else whole


def failed_generation(body: bytes) -> str | None:
    """What the LLM has written, in an error that says it is not what the schema wants (Groq)."""
    try:
        error = _read_json(body)["error"]
        if error["code"] == "json_validate_failed":
            return _plain(error.get("failed_generation"))
    except (MalformedError, KeyError, TypeError):
        pass
    return None


def read_usage(body: bytes) -> Usage:
    """What a body says of its cost, also one that is no completion."""
    try:
        return _usage_of(_read_json(body))
    except MalformedError:
        return Usage()


def without_half_signs(text: str) -> str:
    """The text with its surrogates joined to the signs that they are halves of.

    A half without the other, which neither Arrow nor UTF-8 takes, becomes U+FFFD.
    """
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _read_json(body: bytes) -> Any:  # noqa: ANN401 - whatever the server sends
    text = decode_text(body).text
    if undecodable(text) is not None:
        text = body.decode("latin-1")  # what HTTP means where nothing is said
    try:
        return json.loads(text.strip())
    except (ValueError, RecursionError) as error:
        if events := _events(text):
            return _joined_events(events)
        raise MalformedError(f"the response is not JSON ({error}){_start_of(body)}") from error


def _start_of(body: bytes) -> str:
    words = _without_tags(body[:_MAX_PAGE].decode("utf-8", "replace"))
    return f": {words[:_MAX_SHOWN]}" if words else ": it is empty"


def _without_tags(page: str) -> str:
    return " ".join(_TAGS.sub(" ", page[:_MAX_PAGE]).split())


def _events(text: str) -> list[dict[str, Any]]:
    """The chunks of a stream, which some proxies send although none was asked for."""
    events = []
    for line in text.splitlines():
        if line.startswith("data:"):
            with suppress(ValueError, RecursionError):
                event = json.loads(line.removeprefix("data:"))
                events += [event] if isinstance(event, dict) else []
    return events


def _joined_events(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The completion that chunks are pieces of."""
    choices = [_first(event.get("choices")) for event in events]
    deltas = [choice["delta"] for choice in choices if isinstance(choice.get("delta"), dict)]
    names = ("content", "refusal", *_REASONING)
    pieces = {name: [delta.get(name) for delta in deltas] for name in names}
    message = {
        name: "".join(piece for piece in each if isinstance(piece, str))
        for name, each in pieces.items()
    }
    last = {name: event[name] for event in events for name in ("usage", "error") if event.get(name)}
    ends = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    if not deltas or not ends:  # a stream that breaks off has no answer
        return last
    return last | {"choices": [{"message": message, "finish_reason": ends[-1]}]}


def _usage_of(whole: Any) -> Usage:  # noqa: ANN401 - unchecked
    usage = whole.get("usage") if isinstance(whole, dict) else None
    if not isinstance(usage, Mapping):
        return Usage()
    prompt, output, total = (
        _count(usage.get(name, usage.get(other)))
        for name, other in (
            ("prompt_tokens", "input_tokens"),
            ("completion_tokens", "output_tokens"),
            ("total_tokens", ""),
        )
    )
    if total is not None and prompt is not None:
        # Gemini and xAI bill reasoning that is in the total alone.
        output = max(output or 0, total - prompt)
    return Usage(num_prompt_tokens=prompt, num_output_tokens=output)


def _count(value: Any) -> int | None:  # noqa: ANN401 - unchecked
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return round(value) if is_number and 0 <= value < 2**31 else None


def _first(choices: Any) -> dict[str, Any]:  # noqa: ANN401 - unchecked
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, dict) else {}


def _answer_of(message: Mapping[str, Any]) -> str:
    """What a message says: its content, or what it wants to call a tool with."""
    content = message.get("content")
    text = _plain(content) if isinstance(content, str) else _joined(content)
    if text.strip():
        return text
    calls = message.get("tool_calls")
    call = _first(calls).get("function") or message.get("function_call")
    return _joined(call.get("arguments")) if isinstance(call, dict) else text


def _joined(content: Any) -> str:  # noqa: ANN401 - unchecked
    """The text of parts, without those that are reasoning; an object as the JSON that it was."""
    if isinstance(content, dict):
        return without_half_signs(json.dumps(content, ensure_ascii=False))
    if not isinstance(content, list):
        return _plain(content)
    return "".join(_plain(part.get("text") if isinstance(part, dict) else part) for part in content)


def _plain(value: Any) -> str:  # noqa: ANN401 - unchecked
    return without_half_signs(value) if isinstance(value, str) else ""


def _served_error(error: Any) -> ServedError:  # noqa: ANN401 - unchecked
    said = error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)
    named = error if isinstance(error, dict) else {}
    codes = (str(named.get(name)) for name in ("code", "status", "status_code"))
    numbers = (int(code) for code in codes if code.isdecimal() and len(code) == len("500"))
    status = next((number for number in numbers if number in _STATUSES), _status_of(said))
    return ServedError(status, without_half_signs(said))


def _status_of(said: str) -> int:
    """The status that an error without a number should have had.

    What is told apart by no word of it may be mended by another try.
    """
    words = said.lower()
    if "unexpected endpoint" in words:  # LM Studio, for an address without /v1
        return 404
    if "rate limit" in words or "rate_limit" in words:
        return 429
    if "invalid_request" in words or errors.is_of_the_request(said):
        return 400
    return _FAILED_TO_SERVE
