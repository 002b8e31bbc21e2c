"""Servers that behave as the products do that people run or pay for.

What each takes and refuses, and in which words, is from its documentation and from reports of its
users; the addresses stand beside it. `test_servers.py` asks each of them and writes the table of
`docs/servers.md` from what it had to learn.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any

ANSWER = {"tags": "apple, fruit", "sentence": "A picture of an apple."}

Body = dict[str, Any]
Refusal = tuple[int, Any] | tuple[int, Any, Mapping[str, str]]
"""A status, a body (JSON, or bytes as they are) and headers."""

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A server.

    Attributes:
        name: what it is called, and with which models.
        base_url: where it is found.
        note: what else a person should know.
        refuse: the status and body with which it refuses a request; None where it takes it.
        message: the message of its answer, around the answer's JSON.
        more: fields of the completion beside those that all have.
        first: status and body of its first answer, whatever was asked.
    """

    name: str
    base_url: str
    note: str
    refuse: Callable[[Body], Refusal | None] = lambda _: None
    message: Callable[[str], Any] = lambda text: {"role": "assistant", "content": text}
    more: Callable[[], Body] = dict
    first: Refusal | None = None


def _openai_error(message: str, param: str, code: str) -> Refusal:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return 400, {"error": error}


def _reasoning_model(body: Body) -> Refusal | None:
    # https://github.com/repowise-dev/repowise/issues/987 and the API's own words
    if "max_tokens" in body:
        said = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead."
        )
        return _openai_error(said, "max_tokens", "unsupported_parameter")
    if body.get("temperature", 1) != 1:
        said = (
            f"Unsupported value: 'temperature' does not support {body['temperature']} with this "
            "model. Only the default (1) value is supported."
        )
        return _openai_error(said, "temperature", "unsupported_value")
    if "top_p" in body:
        said = "Unsupported parameter: 'top_p' is not supported with this model."
        return _openai_error(said, "top_p", "unsupported_parameter")
    return None


def _fine_tuned(body: Body) -> Refusal | None:
    # https://platform.openai.com/docs/guides/structured-outputs, on fine-tuned models
    if "pattern" in json.dumps(body.get("response_format", "")):
        said = (
            "Invalid schema for response_format 'answer': In context=('properties', 'tags'), "
            "'pattern' is not permitted."
        )
        return _openai_error(said, "response_format", "invalid_value")
    return None


def _deepseek(body: Body) -> Refusal | None:
    # https://api-docs.deepseek.com/guides/json_mode, https://github.com/llm-exe/llm-exe/issues/662
    form = body.get("response_format", {}).get("type")
    if form == "json_schema":
        said = "This response_format type is unavailable now"
        return 400, {"error": {"message": said, "type": "invalid_request_error", "param": None}}
    if form == "json_object" and "json" not in json.dumps(body["messages"]).lower():
        said = "Prompt must contain the word 'json' in some form to use 'response_format'"
        return 400, {"error": {"message": said, "type": "invalid_request_error"}}
    return None


def _mistral(body: Body) -> Refusal | None:
    # https://docs.mistral.ai/api: `random_seed`; the words: mistralai/platform-docs-public#7
    known = {
        "model", "messages", "temperature", "top_p", "max_tokens", "response_format", "random_seed",
    }  # fmt: skip
    if unknown := sorted(set(body) - known):
        detail = [
            {"type": "extra_forbidden", "loc": ["body", name],
             "msg": "Extra inputs are not permitted", "input": body[name]}
            for name in unknown
        ]  # fmt: skip
        return 422, {"object": "error", "message": {"detail": detail}, "code": None}
    return None


def _magistral(text: str) -> Body:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm, {so}."}]}
    return {"role": "assistant", "content": [thinking, {"type": "text", "text": text}]}


def _gemma(body: Body) -> Refusal | None:
    # https://github.com/vllm-project/vllm/pull/2964
    roles = [message["role"] for message in body["messages"]]
    said = ""
    if "system" in roles:
        said = "System role not supported"
    elif roles[::2] != ["user"] * len(roles[::2]):
        said = "Conversation roles must alternate user/assistant/user/assistant/..."
    error = {"object": "error", "message": said, "type": "BadRequestError", "code": 400}
    return (400, error) if said else None


def _llama_cpp(body: Body) -> Refusal | None:
    # https://github.com/containers/kubernetes-mcp-server/issues/758
    patterns = re.findall(r'"pattern": "(.*?)"[,}]', json.dumps(body.get("response_format", "")))
    if any(not (each.startswith("^") and each.endswith("$")) for each in patterns):
        said = "JSON schema conversion failed:\nPattern must start with '^' and end with '$'"
        return 400, {"error": {"code": 400, "message": said, "type": "invalid_request_error"}}
    return None


def _lm_studio(body: Body) -> Refusal | None:
    # https://github.com/lmstudio-ai/lmstudio-bug-tracker/issues/189
    if body.get("response_format", {}).get("type") not in {None, "json_schema", "text"}:
        return 400, {"error": "'response_format.type' must be 'json_schema' or 'text'"}
    return None


def _thinking(field: str) -> Callable[[str], Body]:
    return lambda text: {"role": "assistant", "content": text, field: "Hm, {so}."}


PRODUCTS = (
    Product(
        name="OpenAI, chat models (gpt-4o, gpt-4.1)",
        base_url="https://api.openai.com/v1",
        note="",
        more=lambda: {"system_fingerprint": None, "service_tier": "default"},
    ),
    Product(
        name="OpenAI, fine-tuned models",
        base_url="https://api.openai.com/v1",
        note="Without patterns the texts are longer.",
        refuse=_fine_tuned,
    ),
    Product(
        name="OpenAI, reasoning models (o-series, gpt-5)",
        base_url="https://api.openai.com/v1",
        note="Reasoning counts as tokens of the answer: raise `max_tokens` to 2000 or more.",
        refuse=_reasoning_model,
    ),
    Product(
        name="vLLM",
        base_url="http://HOST:8000/v1",
        note="A reasoning model needs `--reasoning-parser`, and a larger `max_tokens`.",
        message=_thinking("reasoning"),
        more=lambda: {"prompt_logprobs": None},
    ),
    Product(
        name="Gemma 1 and 2 (vLLM)",
        base_url="http://HOST:8000/v1",
        note="The chat template knows no role `system`.",
        refuse=_gemma,
    ),
    Product(
        name="Ollama",
        base_url="http://localhost:11434/v1",
        note="`timeout_s` has to last for loading the model. Its cloud models do not keep to the "
        "schema; JSON between other words is read.",
        message=_thinking("reasoning"),
    ),
    Product(
        name="LM Studio",
        base_url="http://localhost:1234/v1",
        note="It knows no `json_object`. A wrong address gets an error with status 200, which "
        "ends the run as a 404 does.",
        refuse=_lm_studio,
        message=lambda text: {"role": "assistant", "content": "", "reasoning_content": text},
    ),
    Product(
        name="llama.cpp (`llama-server`)",
        base_url="http://localhost:8080/v1",
        note="A pattern that it cannot compile is refused, or ignored by some versions.",
        refuse=_llama_cpp,
        message=_thinking("reasoning_content"),
    ),
    Product(
        name="DeepSeek",
        base_url="https://api.deepseek.com/v1",
        note="The schema is in the prompt. Where its model writes no JSON the answer is empty.",
        refuse=_deepseek,
        message=_thinking("reasoning_content"),
    ),
    Product(
        name="Mistral",
        base_url="https://api.mistral.ai/v1",
        note="Reasoning models (Magistral) answer with a list of parts, which is read.",
        refuse=_mistral,
        message=_magistral,
    ),
    Product(
        name="OpenRouter",
        base_url="https://openrouter.ai/api/v1",
        note="What a model does not know is left out by the router. An error of the provider has "
        "status 200 and is tried again by its own code.",
        more=lambda: {"provider": "Somebody"},
        first=(200, {"error": {"code": 502, "message": "Provider returned error"}}),
    ),
)


class ProductServer(ThreadingHTTPServer):
    """One product on a local socket."""

    daemon_threads = True

    def __init__(self, product: Product) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.product = product
        self.bodies: list[Body] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


@contextmanager
def serving(product: Product) -> Iterator[ProductServer]:
    server = ProductServer(product)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ProductServer

    def log_message(self, *_) -> None:
        """Nothing goes to stderr."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        product = self.server.product
        with self.server.lock:
            is_first = not self.server.bodies
            self.server.bodies.append(body)
        if is_first and product.first:
            self._send(*product.first)
        elif refusal := product.refuse(body):
            self._send(*refusal)
        else:
            message = product.message(json.dumps(ANSWER))
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37}
            self._send(200, {"id": "x", "choices": [choice], "usage": usage, **product.more()})

    def _send(self, status: int, body: Any, headers: Mapping[str, str] = NO_HEADERS) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)
