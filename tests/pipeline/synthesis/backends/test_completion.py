"""Whatever a server leaves out or puts otherwise is read, or has a reason."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.synthesis.backends.completion import (
    MalformedError,
    ServedError,
    Usage,
    read_completion,
    read_usage,
    words_of_error,
)

TEXT = '{"tags": "apple"}'


def body(message=None, *, choice=None, **whole) -> bytes:
    message = {"role": "assistant", "content": TEXT} if message is None else message
    choices = [{"index": 0, "message": message, "finish_reason": "stop", **(choice or {})}]
    return json.dumps({"id": "x", "choices": choices, **whole}).encode()


MESSAGES = {
    "a text": {"content": TEXT},
    "parts": {"content": [{"type": "text", "text": TEXT}]},
    "parts after reasoning": {
        "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
                    {"type": "text", "text": TEXT}]},
    "parts that are texts": {"content": [TEXT[:5], TEXT[5:]]},
    "an object": {"content": json.loads(TEXT)},
    "a tool call": {"content": None, "tool_calls": [{"function": {"arguments": TEXT}}]},
    "a tool call with an object":
        {"content": "", "tool_calls": [{"function": {"arguments": json.loads(TEXT)}}]},
    "a function call of old": {"content": None, "function_call": {"arguments": TEXT}},
    "reasoning beside it": {"content": TEXT, "reasoning_content": "Hm", "refusal": None},
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_answer_is_found_in_every_form_of_a_message(message) -> None:
    assert read_completion(body(message)).text == TEXT


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, (None, None)),
        ({}, (None, None)),
        ([], (None, None)),
        ({"prompt_tokens": 100, "completion_tokens": 30}, (100, 30)),
        ({"prompt_tokens": 100, "completion_tokens": None, "total_tokens": None}, (100, None)),
        ({"prompt_tokens": 100, "total_tokens": 130}, (100, 30)),
        ({"prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 900}, (100, 800)),
        ({"input_tokens": 100, "output_tokens": 30}, (100, 30)),
        ({"prompt_tokens": 100.5, "completion_tokens": 30.0}, (100, 30)),
        ({"prompt_tokens": "100", "completion_tokens": -1}, (None, None)),
        ({"prompt_tokens": True, "completion_tokens": 1e300}, (None, None)),
    ],
)
def test_usage_is_what_can_be_read_of_it(usage, expected) -> None:
    found = read_completion(body(usage=usage)).usage
    assert (found.num_prompt_tokens, found.num_output_tokens) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [("stop", "stop"), ("eos_token", "eos_token"), (None, None), (7, None), ("", None),
     ("length", "length"), ("MAX_TOKENS", "length"), ("model_length", "length")],
)  # fmt: skip
def test_reason_of_the_end_is_the_servers_but_for_the_limit(said, expected) -> None:
    assert read_completion(body(choice={"finish_reason": said})).finish_reason == expected


def test_least_that_a_completion_has_is_enough() -> None:
    found = read_completion(b'{"choices": [{"message": {"content": "yes"}}]}')
    assert (found.text, found.finish_reason, found.usage) == ("yes", None, Usage())


@pytest.mark.parametrize(
    ("message", "choice", "refusal"),
    [
        ({"content": None, "refusal": "I cannot help with that."}, {}, "I cannot help with that."),
        ({"content": ""}, {"finish_reason": "content_filter"}, "finish_reason content_filter"),
        ({"content": None}, {"finish_reason": "SAFETY"}, "finish_reason SAFETY"),
        ({}, {"finish_reason": "content_filter: PROHIBITED_CONTENT"},
         "finish_reason content_filter: PROHIBITED_CONTENT"),
        ({}, {"finish_reason": "content_filter", "message": None}, "finish_reason content_filter"),
        ({"content": TEXT, "refusal": ""}, {}, ""),
    ],
)  # fmt: skip
def test_refusal_and_filter_are_told(message, choice, refusal) -> None:
    assert read_completion(body(message, choice=choice)).refusal == refusal


@pytest.mark.parametrize(
    "raw",
    [b"", b"<html><body>Gateway</body></html>", b"[]", b"null", b"{}", b'{"choices": null}',
     b'{"choices": []}', b'{"choices": [null]}', b'{"choices": [{"message": null}]}',
     b'{"choices": {"0": 1}}', b"[" * 100_000, b'{"choices": [', b"\xff\xfe"],
)  # fmt: skip
def test_what_is_no_completion_is_malformed(raw) -> None:
    with pytest.raises(MalformedError):
        read_completion(raw)


@pytest.mark.parametrize(
    ("raw", "words"),
    [(b"", "it is empty"), (b'{"detail": "no key"}', '{"detail": "no key"}'),
     (b"<html><style>p {}</style><body>Please log in</body></html>", ": Please log in")],
)  # fmt: skip
def test_what_is_no_completion_is_shown(raw, words) -> None:
    with pytest.raises(MalformedError, match=re.escape(words)):
        read_completion(raw)


def stream(*choices, **last) -> bytes:
    events = [{"choices": [choice]} for choice in choices] + [{"choices": [], **last}]
    lines = [f"data: {json.dumps(event)}\r\n\r\n" for event in events]
    return "".join([": waiting\n\n", *lines, "data: [DONE]\n\n"]).encode()


def test_stream_that_nobody_asked_for_is_read() -> None:
    pieces = [
        {"delta": {"content": each}, "finish_reason": None}
        for each in (TEXT[:5], TEXT[5:], "\ud83d", "\ude00")
    ]
    usage = {"prompt_tokens": 9, "completion_tokens": 3}
    raw = stream(*pieces, {"delta": {}, "finish_reason": "stop"}, usage=usage)
    found = read_completion(raw)
    assert (found.text, found.finish_reason) == (f"{TEXT}\U0001f600", "stop")
    assert found.usage == read_usage(raw) == Usage(num_prompt_tokens=9, num_output_tokens=3)
    with pytest.raises(MalformedError):
        read_completion(stream(*pieces))
    with pytest.raises(ServedError):
        read_completion(stream(*pieces, error={"code": 502, "message": "broke off"}))


@pytest.mark.parametrize(
    ("whole", "status"),
    [
        ({"error": {"code": 502, "message": "Provider returned error"}}, 502),
        ({"error": {"code": "429", "message": "slow down"}}, 429),
        ({"error": {"status": "UNAVAILABLE", "code": 503}}, 503),
        ({"error": {"code": None, "type": "invalid_request_error", "message": "no"}}, 400),
        ({"error": "Unexpected endpoint or method. (POST /chat/completions)"}, 404),
        ({"error": {"message": "Rate limit reached for requests"}}, 429),
        ({"error": {"message": "maximum context length is 4096 tokens"}}, 400),
        ({"error": {"message": "something broke", "code": "oops"}}, 500),
        ({"object": "error", "message": "no", "code": 400}, 400),
        ({"choices": [{"error": {"code": 502}, "message": {"content": ""}}]}, 502),
        ({"choices": [{"finish_reason": "error", "message": {"content": ""}}]}, 500),
        ([{"error": {"code": 429, "message": "Resource has been exhausted"}}], 429),
    ],
)
def test_error_with_status_200_has_its_own(whole, status) -> None:
    with pytest.raises(ServedError) as error:
        read_completion(json.dumps(whole).encode())
    assert error.value.status == status


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("no", "no"),
        ({"message": "no", "code": None}, "no"),
        ({"message": "no", "code": "context_length_exceeded"}, "no (context_length_exceeded)"),
        ({"message": {"detail": ["seed"]}}, '{"message": {"detail": ["seed"]}}'),
        ({"message": "no", "metadata": {"raw": "of the provider"}},
         '{"message": "no", "metadata": {"raw": "of the provider"}}'),
        ([1], "[1]"),
        ([{"error": {"code": 400, "message": "no"}}], "no"),
        ({"choices": [{"error": {"message": "broke off"}}]}, "broke off"),
        ("<html><head><title>502</title></head><p>Bad gateway</p></html>", "502 Bad gateway"),
    ],
)  # fmt: skip
def test_error_is_shown_with_all_that_it_says(error, words) -> None:
    assert words_of_error(error) == words


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (body({"content": "pictur\xe9"}), "pictur\xe9"),
        (b'{"choices": [{"message": {"content": "pictur\xe9"}}]}', "pictur\xe9"),
        (b"\xef\xbb\xbf" + body({"content": "a"}), "a"),
        (body({"content": "a"}).decode().encode("utf-16"), "a"),
        (body({"content": "half \ud83d."}), "half \ufffd."),
        (body({"content": "\ud83d\ude00"}), "\U0001f600"),
    ],
)
def test_text_is_decoded_whatever_its_bytes(raw, text) -> None:
    assert read_completion(raw).text == text


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(
    inner) | st.dictionaries(st.sampled_from(["choices", "message", "content", "usage", "error",
    "tool_calls", "function", "arguments", "prompt_tokens", "finish_reason"]), inner)))  # fmt: skip
def test_any_json_is_an_answer_or_has_a_reason(whole) -> None:
    raw = json.dumps(whole).encode()
    read_usage(raw)
    try:
        found = read_completion(raw)
    except (MalformedError, ServedError):
        return
    found.text.encode()  # Arrow takes it
