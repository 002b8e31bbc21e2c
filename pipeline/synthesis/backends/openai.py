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
from pipeline.synthesis.backends.client import (
    MAX_WAIT_S,
    TALLY,
    BoundedClient,
    MalformedResponseError,
    Tally,
    long_pause,
)
from pipeline.synthesis.backends.completion import (
    Completion,
    Usage,
    failed_generation,
    read_completion,
    without_half_signs,
    words_of_error,
)
from pipeline.synthesis.backends.dialect import all_words, learn, request_body
from pipeline.synthesis.backends.reply import Reply, add_replies
from pipeline.synthesis.backends.settings import EndpointSettings
from pipeline.synthesis.budget import estimate_prompt_tokens
from pipeline.synthesis.requests import ERROR_COLUMN
from pipeline.synthesis.settings import SynthesisSettings
from pipeline.synthesis.vision import with_pictures

if TYPE_CHECKING:
    from ray.data import Dataset

_MAX_DETAIL = 300  # characters of what a server says

_MAX_TRIES = 12
"""Wordings of a request, more than there are settings: a server may refuse both of two."""

_NOT_OF_THE_REQUEST = {401, 402, 403, 408, 409, 429}
"""What is wrong with these is not how the server was asked."""

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
            http_client=BoundedClient(endpoint),
        )

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """The same rows with their answers."""
        replies = await asyncio.gather(*(self._reply(row) for row in batch.to_pylist()))
        return add_replies(batch, replies, carried=self._carried)

    async def _reply(self, row: Mapping[str, Any]) -> Reply:
        if row[ERROR_COLUMN]:
            return Reply(error=row[ERROR_COLUMN])
        tally = Tally(
            num_prompt_tokens=estimate_prompt_tokens(row),
            max_tokens=row["sampling_params"]["max_tokens"],
        )
        TALLY.set(tally)
        async with self._slots:
            reply = await self._ask(row)
        notices = "\n".join(dict.fromkeys(tally.notices))
        return replace(reply, num_billed_tokens=tally.num_billed_tokens, notices=notices)

    async def _ask(self, row: Mapping[str, Any]) -> Reply:
        """Send a request until it is answered, or refused for what no other wording mends.

        What a refusal teaches is kept for others when it has helped: words alone may mislead.
        """
        common = asked_as = self._endpoint
        lessons: dict[str, str] = {}
        num_sent = 0
        while True:
            num_sent += 1
            found = await self._send(asked_as, row)
            if isinstance(found, Completion):
                self._adopt(asked_as, lessons)
                return self._read(found, row["sampling_params"]["max_tokens"])
            if num_sent == _MAX_TRIES:
                return Reply(error=self._explain(found))
            if self._endpoint is not common:  # another request has learnt in the meantime
                common = asked_as = self._endpoint
                lessons = {}
            elif isinstance(found, openai.APIStatusError) and (change := _lesson(asked_as, found)):
                asked_as = asked_as.model_copy(update=change)
                lessons |= dict.fromkeys(change, self._said(found))
            else:
                return Reply(error=self._explain(found))

    async def _send(
        self, endpoint: EndpointSettings, row: Mapping[str, Any]
    ) -> Completion | openai.APIError:
        """The answer, which may be the one that an error tells of, or the error."""
        body = request_body(endpoint, row)
        body["messages"] = with_pictures({**row, "messages": body["messages"]})
        try:
            response = await self._client.chat.completions.with_raw_response.create(
                model=self._model, extra_headers=self._headers, **body
            )
        except openai.APIError as error:
            # Handled by the caller: the traceback of what stops a run, which Ray logs, would end
            # with the words of the server, and these may hold the key.
            if not isinstance(error, openai.APIStatusError):
                return error
            written = failed_generation(error.response.content)
            if written is None:
                return error
            TALLY.get().bill(Usage(), written)
            return Completion(text=written)
        return read_completion(response.content)

    def _read(self, found: Completion, max_tokens: int) -> Reply:
        usage, finish_reason = found.usage, found.finish_reason
        if finish_reason is None and (usage.num_output_tokens or 0) >= max_tokens:
            finish_reason = "length"
        text = found.text
        if not text.strip() and finish_reason != "length":
            text = found.reasoning  # where LM Studio and vLLM put some models' whole answer
        return Reply(
            generated_text=None if found.refusal else text,
            num_input_tokens=usage.num_prompt_tokens,
            num_generated_tokens=usage.num_output_tokens,
            finish_reason=finish_reason,
            error=errors.describe(errors.REFUSED, self._shown(found.refusal))
            if found.refusal
            else "",
        )

    def _adopt(self, answered_as: EndpointSettings, lessons: Mapping[str, str]) -> None:
        """Ask as has just been answered from now on, and say what the server had refused."""
        for name, said in lessons.items():
            value = getattr(answered_as, name)
            if getattr(self._endpoint, name) == value:
                continue
            self._endpoint = self._endpoint.model_copy(update={name: value})
            TALLY.get().notices.append(
                f"synthesis.endpoint: the server has refused a request, and is now asked with "
                f"{name}: {json.dumps(value)}. Put that into the recipe, and no run begins with a "
                f"refusal. It said: {said}"
            )

    def _explain(self, error: openai.APIError) -> str:
        match error:
            case openai.APIConnectionError():
                return self._of_connection(error)
            case openai.APIStatusError():
                return self._of_status(error)
        return self._shown(error.message)

    def _of_connection(self, error: openai.APIConnectionError) -> str:
        """What a request has died of that no try has got a whole response to."""
        cause = error.__cause__
        said = self._shown(str(cause) or type(cause).__name__)
        match cause:
            case httpx2.ConnectError() | httpx2.ConnectTimeout():
                raise UserError(
                    f"synthesis.endpoint.base_url: no connection to {self._endpoint.base_url}: "
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
        said = self._said(error)
        status = error.status_code
        if pause_s := long_pause(error.response):
            raise UserError(
                f"synthesis.endpoint: {self._endpoint.base_url} asks for a pause of {pause_s:.0f} s"
                f": {said}",
                f"A run waits for up to {MAX_WAIT_S:.0f} s. What was answered stays; give the same "
                "command after the pause.",
                exit_code=FAILED,
            )
        # All that it says counts, not only what is shown.
        words = all_words(error.body)
        reason = errors.PROMPT_TOO_LONG if status == 413 else errors.classify(words)[0]
        of_all = errors.status_for_all(words) or status
        # Some gateways refuse a text with 403.
        if of_all in {401, 402, 403, 404, 405} and reason != errors.REFUSED:
            self._stop(of_all, said)
        if status in {408, 409, 429} or status >= 500:
            reason = errors.SERVER_ERROR
        return errors.describe(reason, said)

    def _stop(self, status: int, said: str) -> NoReturn:
        """End the run at what would befall every request."""
        name = self._endpoint.api_key_env
        match status:
            case 401 | 403 if name:
                hint = (
                    f"Check that the environment's {name} holds a key that may use {self._model}."
                )
            case 401 | 403:
                hint = "Name the variable that holds the key in synthesis.endpoint.api_key_env."
            case 404 | 405:
                hint = (
                    f"Check that it serves {self._model} (synthesis.model) at that address, which "
                    "ends in /v1 with most servers."
                )
            case _:
                hint = "Check the account's credit."
        raise UserError(
            f"synthesis.endpoint: {self._endpoint.base_url} answers: {said}",
            f"{hint} What was answered stays; the same command goes on from there.",
            exit_code=FAILED,
        )

    def _said(self, error: openai.APIStatusError) -> str:
        """The package's own message leaves out every error that is not of OpenAI's form."""
        words = words_of_error(error.body) if error.body else error.response.text
        return self._shown(f"Error code: {error.status_code} - {words}")

    def _shown(self, said: str) -> str:
        """What a server says, as a person and a corpus may see it: short, and without the key."""
        said = without_half_signs(" ".join(said.split()))
        return (said.replace(self._key, "…") if self._key else said)[:_MAX_DETAIL]


def _lesson(asked_as: EndpointSettings, error: openai.APIStatusError) -> dict[str, Any]:
    """How else the server is to be asked after an error; empty where that would not help."""
    if error.status_code in _NOT_OF_THE_REQUEST:
        return {}
    return learn(asked_as, error.body or error.message)
