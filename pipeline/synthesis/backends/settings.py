"""What a recipe may say about an endpoint."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from pipeline.settings import Settings


class EndpointSettings(Settings):
    """An OpenAI-compatible server, and how much it may be asked at a time."""

    base_url: str
    """Its address, as the `openai` package wants it: `https://api.example.com/v1`."""

    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable that holds the key, never the key itself; null for a server
    that wants none."""

    concurrency: int = Field(default=16, ge=1)
    """Requests that are in flight at the same time."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    """Requests that are sent at most, those of another try counted; null sets no limit."""

    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Tokens that are asked for at most: those of the prompts, guessed from their length, and
    `max_tokens` for each answer; null sets no limit."""

    timeout_s: float = Field(default=120, gt=0)
    """Longest that an answer may take, in seconds, until its last byte."""

    max_retries: int = Field(default=6, ge=0)
    """How often a request is sent again after a 408, 409, 429 or 5xx, a closed connection, a
    timeout or an answer that is none: after the server's `Retry-After` of up to two minutes, else
    after 0.5 s and twice as long each time, up to 8 s. Default: ours, half a minute in all."""

    response_format: Literal["json_schema", "json_object", "none"] = "json_schema"
    """How the server is told that the answer is JSON. With the last two the schema is in the
    prompt. This and the next four are where a run begins: what the server refuses is sent otherwise
    from then on, and a warning says so. `docs/servers.md` says what each server takes."""

    schema_bounds: bool = True
    """Whether the schema bounds what is written (`pattern`, `minimum`, `maximum`), which some
    servers refuse."""

    max_tokens_parameter: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls the limit of an answer's tokens."""

    drop_params: tuple[Literal["temperature", "top_p", "seed"], ...] = ()
    """Sampling parameters that are not sent. The server's own default then counts."""

    system_role: bool = True
    """Whether the server's model knows the role `system`; if not, its message is put at the
    start of the user's first one."""

    @field_validator("base_url")
    @classmethod
    def _is_address_without_password(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            message = "Input should be an address: http://HOST/v1 or https://HOST/v1"
            raise ValueError(message)
        if parts.username or parts.password or parts.query:
            message = "Input should hold no user, password or key: name a variable in api_key_env"
            raise ValueError(message)
        return url
