"""The HTTP client under the `openai` package, with what a server is not trusted to keep to.

The package sends a request again after a failure; each of its tries comes through here, so that all
of them wait their turn, end in time and stay small.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
from openai import DefaultAsyncHttpxClient
from pydantic import BaseModel, Field, ValidationError

from pipeline.synthesis.backends.pace import Pace
from pipeline.synthesis.backends.settings import EndpointSettings

_MAX_BYTES = 4 * 2**20
"""Of a response; an answer has some kilobytes. Without a limit, a server that does not stop fills
the memory."""

_BYTES_PER_TOKEN = 4  # of English prose, for the guess at a prompt's tokens


class MalformedResponseError(httpx2.RemoteProtocolError):
    """A response that is no chat completion."""


class BoundedClient(DefaultAsyncHttpxClient):
    """Sends at the recipe's pace, and gives up on what takes too long, is too large or is garbage.

    httpx's own timeout is for each read: a server that sends a byte a minute would never end.
    """

    def __init__(self, endpoint: EndpointSettings, max_tokens: int) -> None:
        super().__init__(timeout=endpoint.timeout_s)
        self._timeout_s = endpoint.timeout_s
        self._max_tokens = max_tokens
        self._requests = Pace(endpoint.requests_per_minute)
        self._tokens = Pace(endpoint.tokens_per_minute)

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:  # noqa: ANN401
        """One try at a request; the response is read whole, whatever the options say of that.

        Raises:
            httpx2.TransportError: for a try that has failed, which `openai` takes for one that may
                be repeated.
        """
        await self._requests.wait(1)
        prompt = len(await request.aread()) // _BYTES_PER_TOKEN
        await self._tokens.wait(prompt + self._max_tokens)
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await super().send(request, **options | {"stream": True})
                try:
                    body = await _read(response)
                finally:
                    await response.aclose()
        except TimeoutError as error:
            message = f"no whole answer within {self._timeout_s:g} s"
            raise httpx2.ReadTimeout(message, request=request) from error
        if response.is_success:
            _check(body, request)
        return httpx2.Response(
            response.status_code,
            headers=[
                (name, value)
                for name, value in response.headers.multi_items()
                if name not in _OF_THE_TRANSFER
            ],
            content=body,
            request=request,
        )


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class _Completion(BaseModel):
    """What is read of a chat completion."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


_OF_THE_TRANSFER = {"content-encoding", "content-length", "transfer-encoding", "content-type"}


async def _read(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _MAX_BYTES:
            message = f"it has more than {_MAX_BYTES} bytes"
            raise MalformedResponseError(message, request=response.request)
    return bytes(body)


def _check(body: bytes, request: httpx2.Request) -> None:
    try:
        _Completion.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        message = f"{where + ': ' if where else ''}{first['msg']}"
        raise MalformedResponseError(message, request=request) from error
