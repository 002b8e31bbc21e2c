"""An OpenAI-compatible server on a local socket that fails as it is told to.

A prompt that holds `fault-NAME` meets the fault of that name; every other is answered with the JSON
that it asks for.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-a-key-that-must-not-be-seen"

_STATUS = {
    "400": "temperature must be at most 2",
    "400-context": "This model's maximum context length is 4096 tokens. Reduce the length.",
    "400-filter": "The response was filtered by the content management policy.",
    "401": f"Incorrect API key provided: {KEY}",
    "402": "Insufficient credits",
    "403": f"The key {KEY} may not use this model",
    "403-moderation": "Your input was flagged by moderation",
    "404": "The model does not exist",
    "413": "Payload",
    "422": "unprocessable",
    "500": "internal error",
    "503": "overloaded",
}
_TEXTS = {
    "tags": "something, else",
    "sentence": "A picture of something.",
    "dense": "The picture shows something. There is something else in it.",
}
_COMPLETIONS = {
    "not-json": {"content": "Sure! Here it is"},
    "cut": {"content": '{"tags": "A', "finish_reason": "length", "tokens": 16},
    "empty": {"content": None},
    "refusal": {"content": None, "refusal": "I cannot help with that."},
    "filtered": {"content": "", "finish_reason": "content_filter"},
    "reasoning": {"content": None, "reasoning_content": "Hm, " * 9, "finish_reason": "length"},
}
_HABITS = {
    "no-usage": lambda text: {"content": text, "usage": None},
    "thinking": lambda text: {"content": f"<think>It says {{so}}.</think>\n```json\n{text}\n```"},
    "parts": lambda text: {"content": [{"type": "text", "text": text}]},
    "half-sign": lambda text: {"content": text.replace("something", "something \\ud83d", 1)},
}
"""How some servers word an answer."""

_BODIES = {
    "html": b"<html>a login page</html>",
    "empty-body": b"",
    "other-json": b'{"choices": []}',
    "error-200": b'{"error": {"code": 502, "message": "the provider is overloaded"}}',
}
_STREAMS = {"garbage": (b"\xff\x00garbage" * 4096, 0), "drip": (b" ", 0.05)}
"""What a server sends without an end, and the pauses between, in seconds."""

_WAIT_S = 1.6
"""How long a server that has said Retry-After refuses: longer than a client waits unasked."""


class FaultyServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.tries: Counter[tuple[str, ...]] = Counter()
        self.answered: list[tuple[str, ...]] = []
        self.keys: set[str | None] = set()
        self.bodies: list[dict] = []
        self.refused_since: dict[tuple[str, ...], float] = {}
        self.answers_left: int | None = None
        self.unknown_parameter: str | None = None
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def tries_of(self, prompt: str) -> int:
        return sum(count for chat, count in self.tries.items() if chat[-1] == prompt)

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is what some faults make of it."""


@contextmanager
def serving() -> Iterator[FaultyServer]:
    server = FaultyServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def log_message(self, *_) -> None:
        """Nothing goes to stderr."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        chat = tuple(_text_of(message["content"]) for message in body["messages"])
        if self.server.unknown_parameter in body:
            said = f"Unrecognized request argument supplied: {self.server.unknown_parameter}"
            self._send_error(400, said)
            return
        with self.server.lock:
            self.server.tries[chat] += 1
            self.server.keys.add(self.headers.get("Authorization"))
            self.server.bodies.append(body)
            is_first = self.server.tries[chat] == 1
            is_down = self.server.answers_left == 0
            if self.server.answers_left:
                self.server.answers_left -= 1
        found = re.search(r"fault-([a-z0-9-]+)", chat[-1])
        fault = "503" if is_down else found[1] if found else ""
        if fault.endswith("-once"):
            fault = fault.removesuffix("-once") if is_first else ""
        self._fail(fault, chat, body)

    def _fail(self, fault: str, chat: tuple[str, ...], body: dict) -> None:
        if fault.startswith("retry-after"):
            self._refuse_for_a_while(fault, chat, body)
        elif fault == "quota":
            self._send_error(429, "You exceeded your current quota", code="insufficient_quota")
        elif fault in _STATUS:
            self._send_error(int(fault[:3]), _STATUS[fault])
        elif fault in _COMPLETIONS:
            self._complete(**_COMPLETIONS[fault])
        elif fault in _BODIES:
            self._send(_BODIES[fault])
        elif fault in _STREAMS:
            self._stream(*_STREAMS[fault])
        elif fault == "close":
            self._send(b'{"id": "x", "choi', length=400)
            self.close_connection = True
        elif fault == "hang":
            self.server.closing.wait()
        else:
            self._answer(chat, body, habit=_HABITS.get(fault))

    def _refuse_for_a_while(self, fault: str, chat: tuple[str, ...], body: dict) -> None:
        now = time.monotonic()
        since = self.server.refused_since.setdefault(chat, now)
        if now - since >= _WAIT_S:
            self._answer(chat, body)
        elif fault == "retry-after-date":
            # A date has whole seconds, so that it may be up to one second nearer.
            self._send_error(429, "slow down", after=formatdate(time.time() + 3, usegmt=True))
        else:
            self._send_error(429, "slow down", after="2")

    def _answer(self, chat: tuple[str, ...], body: dict, habit=None) -> None:
        with self.server.lock:
            self.server.answered.append(chat)
        schema = body["response_format"]["json_schema"]["schema"]
        text = json.dumps({form: _TEXTS[form] for form in schema["properties"]})
        self._complete(**(habit(text) if habit else {"content": text}))

    def _complete(
        self, *, finish_reason: str = "stop", tokens: int = 7, usage: object = ..., **message
    ) -> None:
        choice = {
            "index": 0,
            "message": {"role": "assistant", **message},
            "finish_reason": finish_reason,
        }
        if usage is ...:
            usage = {"prompt_tokens": 30, "completion_tokens": tokens, "total_tokens": 30 + tokens}
        completion = {"id": "x", "object": "chat.completion", "created": 0, "model": "served"}
        self._send(json.dumps({**completion, "choices": [choice], "usage": usage}).encode())

    def _send_error(self, status: int, message: str, *, code=None, after=None) -> None:
        self.send_response(status)
        body = json.dumps({"error": {"message": message, "code": code}}).encode()
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if after is not None:
            self.send_header("Retry-After", after)
        self.end_headers()
        self.wfile.write(body)

    def _send(self, body: bytes, *, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, chunk: bytes, pause_s: float) -> None:
        """Send for as long as the client listens."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.close_connection = True
        while not self.server.closing.wait(pause_s):
            self.wfile.write(chunk)
            self.wfile.flush()


def _text_of(content: str | list[dict]) -> str:
    """A message's text, also where pictures stand before it."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")
