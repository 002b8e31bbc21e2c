"""The rival of `synthesis`: `vllm.LLM.chat` and nothing around it.

A script for the interpreter of the environment that holds vLLM, which has no anymix. It reads one
JSON object from stdin and says one line for each pass before it (`MARK`), and one behind it with
what it has found; vLLM's own lines stand between them.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

MARK = "raw-vllm "


def main() -> None:
    """Start the engine, warm it up, and time each pass."""
    from vllm import LLM

    task = json.load(sys.stdin)
    started = time.monotonic()
    llm = LLM(**task["engine"])
    start_s = time.monotonic() - started
    _chat(llm, task["warm_up"])
    for requests in task["passes"]:
        _say({})
        began = time.monotonic()
        outputs = _chat(llm, requests)
        seconds = time.monotonic() - began
        answers = [output.outputs[0] for output in outputs]
        _say(
            {
                "start_s": start_s,
                "seconds": seconds,
                "num_tokens": sum(len(answer.token_ids) for answer in answers),
                "texts": [answer.text for answer in answers],
            }
        )


def _chat(llm: Any, requests: list[dict[str, Any]]) -> list[Any]:
    """The answers, all asked for in one call."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    params = []
    for request in requests:
        given = dict(request["sampling_params"])
        schema = given.pop("structured_outputs", None)
        structured = StructuredOutputsParams(**schema) if schema else None
        params.append(SamplingParams(**given, structured_outputs=structured))
    return llm.chat([request["messages"] for request in requests], params, use_tqdm=False)


def _say(found: dict[str, Any]) -> None:
    print(MARK + json.dumps(found), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
