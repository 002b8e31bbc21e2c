"""The HTTP client under the `openai` package, with what a server is not trusted to keep to.

The package sends a request again after a failure; each of its tries comes through here, so that all
of them wait their turn, end in time, stay small and are counted.
"""

from __future__ import annotations

import asyncio
import email.utils
import math
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import httpx2
from openai import DefaultAsyncHttpxClient

from pipeline.synthesis.backends.completion import (
    MalformedError,
    ServedError,
    Usage,
    read_completion,
    read_usage,
)
from pipeline.synthesis.backends.pace import Pace
from pipeline.synthesis.backends.settings import EndpointSettings
from pipeline.synthesis.budget import estimate_tokens

MAX_WAIT_S = 3600.0
"""Longest `Retry-After` that a run sits out; one that is longer ends it."""

_MAX_OF_THE_PACKAGE_S = 120.0  # from here on `openai` gives up instead of waiting

_MAX_BYTES = 4 * 2**20
"""Of a response; an answer has some kilobytes. Without a limit, a server that does not stop fills
the memory."""

_TOO_MANY = {429, 503}
_TRIED_AGAIN = {408, 409, 429}  # and all from 500 on
_OF_A_PAUSE = ("retry-after", "retry-after-ms")
_PAUSE = re.compile(
    r"""(?:again in|retry in|retry after|"retryDelay":) *"?"""
    r"(?:(\d+)h)?(?:(\d+)m(?!s))?(\d+(?:\.\d+)?) ?s(?:ec|\b)"
)
"""How OpenAI, Groq and Gemini word a pause in the body: `Please try again in 1m26.4s`."""

_ESTIMATED = (
    "synthesis.endpoint: the server does not say how many tokens it has used; they are estimated "
    "as a quarter of the bytes of what was sent and written."
)


class MalformedResponseError(httpx2.RemoteProtocolError):
    """A response that is no chat completion."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What the tries of one request have come to.

    Attributes:
        num_prompt_tokens: of one try, estimated.
        max_tokens: of an answer.
        num_billed_tokens: of all tries that the server has worked on, as it counts them, else
            estimated.
        waited_s: how long the server has been left alone for it, in seconds.
        notices: what a person should know.
    """

    num_prompt_tokens: int
    max_tokens: int
    num_billed_tokens: int = 0
    waited_s: float = 0.0
    notices: list[str] = field(default_factory=list)

    def bill(self, usage: Usage, written: str = "") -> None:
        """Count a try."""
        prompt, output = usage.num_prompt_tokens, usage.num_output_tokens
        self.num_billed_tokens += self.num_prompt_tokens if prompt is None else prompt
        self.num_billed_tokens += estimate_tokens(written) if output is None else output


TALLY: ContextVar[Tally] = ContextVar("tally")
"""That of the request which this task sends: the package hands nothing of ours on to `send`."""


class BoundedClient(DefaultAsyncHttpxClient):
    """Sends at the recipe's pace, and gives up on what takes too long, is too large or is garbage.

    httpx's own timeout is for each read: a server that sends a byte a minute would never end.
    """

    def __init__(self, endpoint: EndpointSettings) -> None:
        super().__init__(timeout=endpoint.timeout_s)
        self._timeout_s = endpoint.timeout_s
        self._requests = Pace(endpoint.requests_per_minute)
        self._tokens = Pace(endpoint.tokens_per_minute)
        self._closed_until = 0.0

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:  # noqa: ANN401
        """One try at a request; the response is read whole, whatever the options say of that.

        A server that asks to be left alone for longer than `openai` waits is waited for here.

        Raises:
            httpx2.TransportError: for a try that has failed, which `openai` takes for one that may
                be repeated.
        """
        while True:
            await asyncio.sleep(self._closed_until - time.monotonic())
            response = await self._try(request, options)
            wait_s, tally = long_pause(response), TALLY.get()
            if not wait_s or tally.waited_s + wait_s > MAX_WAIT_S:
                return response
            tally.waited_s += wait_s
            self._closed_until = max(self._closed_until, time.monotonic() + wait_s)
            tally.notices.append(
                "synthesis.endpoint: the server has asked for a pause of "
                f"{math.ceil(wait_s / 60)} min (Retry-After), and the run has waited."
            )

    async def _try(self, request: httpx2.Request, options: Mapping[str, Any]) -> httpx2.Response:
        tally = TALLY.get()
        await self._requests.wait(1)
        await self._tokens.wait(tally.num_prompt_tokens + tally.max_tokens)
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await super().send(request, **{**options, "stream": True})
                try:
                    body = await _read(response)
                finally:
                    await response.aclose()
        except (TimeoutError, httpx2.ReadTimeout) as error:
            tally.bill(Usage(num_output_tokens=0))  # how far it has come, nobody knows
            message = f"no whole response within {self._timeout_s:g} s (endpoint.timeout_s)"
            raise httpx2.ReadTimeout(message, request=request) from error
        except MalformedResponseError:
            tally.bill(Usage(num_output_tokens=tally.max_tokens))
            raise
        return _checked(response, body, request)


def long_pause(response: httpx2.Response) -> float:
    """Seconds that a server asks to be left alone for, where `openai` would give up; else 0."""
    wait_s = float(response.headers.get("retry-after", 0))  # `_checked` has put seconds there
    return wait_s if wait_s > _MAX_OF_THE_PACKAGE_S else 0.0


def asked_pause(status: int, headers: Mapping[str, str], body: str) -> float | None:
    """Seconds that a server asks to be left alone for, as its headers say, else its words.

    Args:
        status: of the response.
        headers: their names in lower case.
        body: what the words are looked for in, with a status that asks for a pause.
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1)):
        with suppress(KeyError, ValueError):
            wait_s = float(headers[name]) * unit_s
            if math.isfinite(wait_s):
                return max(0.0, wait_s)
    with suppress(KeyError, ValueError, OverflowError):
        until = email.utils.parsedate_to_datetime(headers["retry-after"])
        return max(0.0, until.timestamp() - time.time())
    if status in _TOO_MANY and (said := _PAUSE.search(body)):
        hours, minutes, seconds = (float(each or 0) for each in said.groups())
        return hours * 3600 + minutes * 60 + seconds
    return None


_OF_THE_TRANSFER = {"content-encoding", "content-length", "transfer-encoding", "content-type"}


async def _read(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _MAX_BYTES:
            message = f"the response has more than {_MAX_BYTES:,} bytes"
            raise MalformedResponseError(message, request=response.request)
    return bytes(body)


def _checked(response: httpx2.Response, body: bytes, request: httpx2.Request) -> httpx2.Response:
    """The response with its body, counted; an error with status 200 has the one that it should."""
    status, tally = response.status_code, TALLY.get()
    if response.is_success:
        try:
            found = read_completion(body)
        except MalformedError as error:
            tally.bill(read_usage(body), body.decode("utf-8", "replace"))
            raise MalformedResponseError(str(error), request=request) from error
        except ServedError as error:
            status = error.status
        else:
            tally.bill(found.usage, found.reasoning + found.text + found.refusal)
            if None in {found.usage.num_prompt_tokens, found.usage.num_output_tokens}:
                tally.notices.append(_ESTIMATED)
    if not 200 <= status < 300 and (usage := read_usage(body)) != Usage():
        tally.bill(usage)
    headers = [
        (name, value)
        for name, value in response.headers.multi_items()
        if name not in _OF_THE_TRANSFER and name not in _OF_A_PAUSE
    ]
    if status in _TRIED_AGAIN or status >= 500:
        pause_s = asked_pause(status, response.headers, body.decode("utf-8", "replace"))
        headers += [] if pause_s is None else [("retry-after", str(pause_s))]
    return httpx2.Response(status, headers=headers, content=body, request=request)
