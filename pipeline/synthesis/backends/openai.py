"""Answers requests with an OpenAI-compatible server, through the `openai` package.

One actor keeps `endpoint.concurrency` requests in flight. The key is read here, travels as a secret
that prints as asterisks, and is taken out of what the server says.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import httpx2
import openai
import pyarrow as pa
from pydantic import SecretStr

from pipeline.errors import FAILED, UserError
from pipeline.synthesis.backends import errors, rows_per_batch
from pipeline.synthesis.backends.client import BoundedClient, MalformedResponseError
from pipeline.synthesis.backends.reply import Reply, add_replies
from pipeline.synthesis.backends.settings import EndpointSettings
from pipeline.synthesis.requests import ERROR_COLUMN
from pipeline.synthesis.settings import SynthesisSettings
from pipeline.synthesis.vision import with_pictures

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion
    from ray.data import Dataset

_MAX_DETAIL = 300  # characters of what a server says

_LIGHT = 0.5  # logical CPUs of an actor that only waits

_MAX_RESTARTS = 3  # Ray has no limit of its own


def answer(settings: SynthesisSettings, dataset: Dataset, *, carried: Sequence[str]) -> Dataset:
    """See `backends.answer`.

    Raises:
        UserError: when the variable that should hold the key is not set.
    """
    import ray

    endpoint = endpoint_of(settings)
    key = read_key(endpoint)
    in_flight = 1 + -(-endpoint.concurrency // rows_per_batch(settings))
    return dataset.map_batches(
        Asker,
        fn_constructor_kwargs={
            "settings": settings, "key": key, "carried": tuple(carried),
        },
        batch_format="pyarrow",
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=1, max_tasks_in_flight_per_actor=2 * in_flight),
        num_cpus=_LIGHT,
        max_concurrency=in_flight,
        max_restarts=_MAX_RESTARTS,
    )  # fmt: skip


def endpoint_of(settings: SynthesisSettings) -> EndpointSettings:
    """The section of the recipe; it is there when the backend is this one."""
    assert settings.endpoint is not None, "the settings see to it"  # noqa: S101
    return settings.endpoint


def read_key(endpoint: EndpointSettings) -> SecretStr | None:
    """The key that the environment holds; None where the server wants none.

    Raises:
        UserError: when the variable is not set.
    """
    name = endpoint.api_key_env
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise UserError(
            f"synthesis.endpoint.api_key_env: the environment has no {name}, or it is empty.",
            f"Put the key of {endpoint.base_url} there: export {name}=…",
        )
    return SecretStr(key)


class Asker:
    """Asks about a batch of rows, all at once; what Ray Data's actor is made of."""

    def __init__(
        self, settings: SynthesisSettings, key: SecretStr | None, carried: Sequence[str]
    ) -> None:
        endpoint = endpoint_of(settings)
        self._model = settings.model
        self._endpoint = endpoint
        self._carried = carried
        self._key = key.get_secret_value() if key else ""
        # Without a key there is no header to send one in.
        self._headers = {} if key else {"Authorization": openai.Omit()}
        self._slots = asyncio.Semaphore(endpoint.concurrency)
        self._client = openai.AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key=self._key or "none",  # with None the package looks for one of its own
            max_retries=endpoint.max_retries,
            http_client=BoundedClient(endpoint, settings.max_tokens),
        )

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """The same rows with their answers."""
        replies = await asyncio.gather(*(self._reply(row) for row in batch.to_pylist()))
        return add_replies(batch, replies, carried=self._carried)

    async def _reply(self, row: Mapping[str, Any]) -> Reply:
        if row[ERROR_COLUMN]:
            return Reply(error=row[ERROR_COLUMN])
        async with self._slots:
            try:
                completion = await self._client.chat.completions.create(
                    model=self._model,
                    messages=with_pictures(row),
                    extra_headers=self._headers,
                    **_parameters(row["sampling_params"]),
                )
            except openai.APIError as error:
                failure = error
            else:
                return read_completion(completion)
        # Out of the handler: the traceback of what stops a run, which Ray logs, would end with the
        # words of the server, and these may hold the key.
        return Reply(error=self._explain(failure))

    def _explain(self, error: openai.APIError) -> str:
        match error:
            case openai.APIConnectionError():
                return self._of_connection(error)
            case openai.APIStatusError():
                return self._of_status(error)
        return self._without_key(error.message)

    def _of_connection(self, error: openai.APIConnectionError) -> str:
        """What a request has died of that no try has got a whole response to."""
        cause = error.__cause__
        said = self._without_key(str(cause) or type(cause).__name__)
        match cause:
            case httpx2.ConnectError() | httpx2.ConnectTimeout():
                raise UserError(
                    f"synthesis.endpoint.base_url: nothing answers at {self._endpoint.base_url}: "
                    f"{said} ({self._endpoint.max_retries + 1} tries)",
                    "Start the server or correct the address. What was answered stays; the same "
                    "command goes on from there.",
                    exit_code=FAILED,
                )
            case MalformedResponseError():
                return errors.describe(errors.MALFORMED, said)
            case httpx2.TimeoutException():
                return errors.describe(errors.TIMEOUT, said)
        return errors.describe(errors.SERVER_ERROR, f"the connection broke: {said}")

    def _of_status(self, error: openai.APIStatusError) -> str:
        """What a status other than 200 means, after the tries that it is worth."""
        said = self._without_key(error.message)
        status = error.status_code
        is_refusal = errors.classify(said)[0] == errors.REFUSED  # some gateways refuse with 403
        if (
            status in {401, 402, 403, 404} and not is_refusal
        ) or error.code == "insufficient_quota":
            self._stop(status, said)
        if status == 413:
            return errors.describe(errors.PROMPT_TOO_LONG, said)
        if status in {408, 409, 429} or status >= 500:
            return errors.describe(errors.SERVER_ERROR, said)
        return said

    def _stop(self, status: int, said: str) -> NoReturn:
        """End the run at what would befall every request."""
        name = self._endpoint.api_key_env
        match status:
            case 401 | 403 if name:
                hint = f"See that the environment's {name} holds a key that may use {self._model}."
            case 401 | 403:
                hint = "Name the variable that holds the key in synthesis.endpoint.api_key_env."
            case 404:
                hint = f"See whether it serves {self._model} (synthesis.model) at that address."
            case _:
                hint = "Look at the account's credit."
        raise UserError(
            f"synthesis.endpoint: {self._endpoint.base_url} answers: {said}",
            f"{hint} What was answered stays; the same command goes on from there.",
            exit_code=FAILED,
        )

    def _without_key(self, said: str) -> str:
        said = " ".join(said.split())
        return (said.replace(self._key, "…") if self._key else said)[:_MAX_DETAIL]


def read_completion(completion: ChatCompletion) -> Reply:
    """What a server's answer is; `client.py` has seen that it is one."""
    choice, usage = completion.choices[0], completion.usage
    counted = Reply(
        num_input_tokens=usage.prompt_tokens if usage else None,
        num_generated_tokens=usage.completion_tokens if usage else None,
        finish_reason=choice.finish_reason,
    )
    refusal = choice.message.refusal
    if refusal or choice.finish_reason == "content_filter":
        said = (refusal or "finish_reason content_filter")[:_MAX_DETAIL]
        return replace(counted, error=errors.describe(errors.REFUSED, said))
    return replace(counted, generated_text=choice.message.content or "")


def _parameters(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """vLLM's sampling parameters as the endpoint's."""
    same = ("temperature", "top_p", "max_tokens", "seed")
    schema = json.loads(sampling["structured_outputs"]["json"])
    return {name: sampling[name] for name in same} | {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema},
        }
    }
