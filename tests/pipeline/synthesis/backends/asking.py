"""Requests for the endpoint's actor, without Ray."""

from __future__ import annotations

import asyncio
import json

import pyarrow as pa
from pydantic import SecretStr

from pipeline.synthesis.backends.openai import Asker
from pipeline.synthesis.forms import json_schema
from pipeline.synthesis.requests import ERROR_COLUMN
from pipeline.synthesis.settings import SynthesisSettings


def request(record_id: str = "r", **changes) -> dict:
    return {
        "record_id": record_id,
        ERROR_COLUMN: "",
        "messages": [
            {"role": "system", "content": "You write captions."},
            {"role": "user", "content": '{"text":"pear"}'},
            {"role": "assistant", "content": '{"tags":"pear, fruit"}'},
            {"role": "user", "content": '{"text":"apple"}'},
        ],
        "sampling_params": {
            "temperature": 0.3, "top_p": 1.0, "max_tokens": 64, "seed": 7,
            "structured_outputs": {"json": json.dumps(json_schema(["tags", "sentence"], ""))},
        },
    } | changes  # fmt: skip


def settings_for(url: str, **endpoint) -> SynthesisSettings:
    served = {"base_url": url, "timeout_s": 5, "max_retries": 1, **endpoint}
    return SynthesisSettings(backend="openai", model="served", endpoint=served)


def ask(settings: SynthesisSettings, *requests: dict, key: str | None = None) -> list[dict]:
    """What the actor makes of requests that come together."""
    batch = pa.Table.from_pylist(list(requests))
    asker = Asker(settings, SecretStr(key) if key else None, ("record_id",))
    return asyncio.run(asker(batch)).to_pylist()
