"""Why a request has no answer: from an error in words to the reject code, a pure function.

A backend that knows the code puts it in front (`describe`). vLLM and the servers say the rest in
words of their own, and a corpus keeps what they said.
"""

from __future__ import annotations

import re

PROMPT_TOO_LONG = "synthesis-prompt-too-long"
REFUSED = "synthesis-refused"
SERVER_ERROR = "synthesis-server-error"
TIMEOUT = "synthesis-timeout"
MALFORMED = "synthesis-malformed-response"
NOT_RECORDED = "synthesis-not-recorded"
ENGINE_ERROR = "synthesis-engine-error"

REASONS = {
    PROMPT_TOO_LONG: "the prompt is longer than the LLM can read",
    REFUSED: "the LLM or its server would not answer",
    SERVER_ERROR: "the LLM's server failed each time that it was asked",
    TIMEOUT: "the LLM's server did not answer in time",
    MALFORMED: "what the LLM's server sent is not an answer",
    NOT_RECORDED: "there is no recorded answer to this request",
    ENGINE_ERROR: "the LLM's engine or server refused the request",
}
"""The reject codes of a request without an answer, and what they mean."""

_OF_THE_REQUEST = {PROMPT_TOO_LONG, REFUSED}

_TOO_LONG = re.compile(
    r"context[ _]length|(maximum|max) (model|context|prompt) len|context (size|window)"
    r"|(prompt|input|request|payload|entity|string) (is |was )?too (long|large)|reduce the length"
    r"|input token count|tokens \+ .max_new_tokens",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"content[ _]?(filter|policy|management|violat|exists risk)|inappropriate content|moderation"
    r"|flagged|responsible ?ai|safety system|considered high risk|guardrail|data_inspection"
    r"|usage (policy|policies|guidelines)|prohibited_content",
    re.IGNORECASE,
)
_KEY = re.compile(
    r"api[ _]key (is )?(not valid|invalid)|(invalid|incorrect)[ _]api[ _]key|api_key_invalid",
    re.IGNORECASE,
)
_CREDIT = re.compile(
    r"insufficient[ _](balance|quota|credits?|funds)|credit balance|(current|monthly) quota",
    re.IGNORECASE,
)
_MODEL = re.compile(
    r"model_not_(found|available)|(invalid|unknown) model\b|no models? (is |are )?loaded"
    r"|model .{1,80} (not found|does not exist)",
    re.IGNORECASE,
)


def describe(reason: str, detail: str) -> str:
    """An error whose code is known."""
    return f"{reason}: {detail}"


def classify(error: str) -> tuple[str, str]:
    """The reject code of an error, and what it says beside that."""
    reason, separator, detail = error.partition(": ")
    if separator and reason in REASONS:
        return reason, detail
    if _REFUSAL.search(error):
        return REFUSED, error
    return (PROMPT_TOO_LONG if _TOO_LONG.search(error) else ENGINE_ERROR), error


def status_for_all(error: str) -> int | None:
    """The status of what would befall every request, whatever status it came with; else None.

    401 where an error is about the key, 402 about the credit, 404 about the model.
    """
    words = {401: _KEY, 402: _CREDIT, 404: _MODEL}
    return next((status for status, said in words.items() if said.search(error)), None)


def is_of_the_request(error: str) -> bool:
    """Whether an error is the request's own, rather than a sign that the backend is sick."""
    return classify(error)[0] in _OF_THE_REQUEST
