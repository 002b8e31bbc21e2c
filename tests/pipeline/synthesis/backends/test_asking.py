"""What the endpoint's actor makes of a server's habits: answers, costs, pauses."""

import json
import threading

import pytest

from pipeline.errors import UserError
from pipeline.synthesis.backends import client
from pipeline.synthesis.backends.errors import classify
from pipeline.synthesis.budget import estimate_prompt_tokens, estimate_tokens
from pipeline.synthesis.parsing import Rejected, read_texts
from pipeline.synthesis.requests import ERROR_COLUMN
from tests.pipeline.synthesis.backends.asking import ask, request, settings_for
from tests.pipeline.synthesis.backends.products import ANSWER, Product, serving

KEY = "sk-a-key-that-must-not-be-seen"
TEXT = json.dumps(ANSWER)
PROMPT = estimate_prompt_tokens(request())


def completion(content=TEXT, *, finish_reason="stop", usage=None, **message) -> tuple[int, dict]:
    choice = {"message": {"content": content, **message}, "finish_reason": finish_reason}
    return 200, {"choices": [choice], "usage": usage}


def usage(prompt=100, output=30) -> dict:
    return {"prompt_tokens": prompt, "completion_tokens": output}


def scripted(*replies) -> Product:
    """A server that gives these replies in turn, and the last one for ever."""
    left = list(replies)

    def reply(_):
        return left.pop(0) if len(left) > 1 else left[0]

    return Product(name="scripted", base_url="", note="", refuse=reply)


def reply_to(*replies, key=None, **endpoint) -> dict:
    with serving(scripted(*replies)) as server:
        (reply,) = ask(settings_for(server.url, **endpoint), request(), key=key)
    return reply


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        (None, (None, None)),
        (usage(), (100, 30)),
        ({"prompt_tokens": 100.5, "completion_tokens": 30.0, "total_tokens": None}, (100, 30)),
    ],
)
def test_answer_is_taken_whatever_its_usage_says(said, tokens) -> None:
    reply = reply_to(completion(usage=said))
    assert (reply["generated_text"], reply[ERROR_COLUMN]) == (TEXT, "")
    assert (reply["num_input_tokens"], reply["num_generated_tokens"]) == tokens


def test_tokens_spent_on_reasoning_alone_are_an_answer_that_is_cut_off() -> None:
    spent = completion(None, finish_reason="length", reasoning_content="hm " * 60, usage=usage())
    reply = reply_to(spent)
    assert (reply["finish_reason"], reply[ERROR_COLUMN]) == ("length", "")
    why = read_texts(reply["generated_text"], list(ANSWER), complete=False)
    assert isinstance(why, Rejected)
    assert why.reason == "synthesis-cut-off"
    assert "raise synthesis.max_tokens" in why.detail


def test_limit_is_known_by_the_tokens_where_no_reason_is_given() -> None:
    full, short = (completion("{", finish_reason=None, usage=usage(9, n)) for n in (64, 63))
    assert [reply_to(each)["finish_reason"] for each in (full, short)] == ["length", None]


def test_cost_is_the_servers_count_of_every_try() -> None:
    no_choices = (200, {"choices": [], "usage": usage(100, 5)})
    reply = reply_to(no_choices, completion(usage=usage(100, 30)))
    assert reply["num_billed_tokens"] == 100 + 5 + 100 + 30
    assert (reply["num_generated_tokens"], reply["notices"]) == (30, "")


def test_cost_is_estimated_and_never_nothing_where_the_server_does_not_count() -> None:
    reply = reply_to(completion(reasoning="x" * 400))
    assert reply["num_billed_tokens"] == PROMPT + estimate_tokens(TEXT + "x" * 400)
    assert "estimated" in reply["notices"]
    partial = reply_to(completion(usage={"prompt_tokens": 77}))
    assert partial["num_billed_tokens"] == 77 + estimate_tokens(TEXT)


def test_cost_of_a_page_that_is_no_answer_is_that_of_its_prompt_and_itself() -> None:
    page = b"<html><body>Gateway</body></html>"
    reply = reply_to((200, page))
    assert classify(reply[ERROR_COLUMN])[0] == "synthesis-malformed-response"
    assert reply["num_billed_tokens"] == 2 * (PROMPT + estimate_tokens(page.decode()))


def test_refused_requests_cost_nothing() -> None:
    assert reply_to((500, {"error": "no"}))["num_billed_tokens"] == 0
    assert reply_to((500, {"error": "no", "usage": usage(8, 0)}))["num_billed_tokens"] == 16


def test_answer_that_comes_too_late_costs_its_prompt() -> None:
    late = threading.Event()
    never = Product(name="late", base_url="", note="", refuse=lambda _: late.wait() and None)
    with serving(never) as server:
        settings = settings_for(server.url, timeout_s=0.2, max_retries=0)
        (reply,) = ask(settings, request())
        late.set()
    assert classify(reply[ERROR_COLUMN])[0] == "synthesis-timeout"
    assert reply["num_billed_tokens"] == PROMPT


def test_estimated_prompt_counts_pictures_by_their_number_not_their_bytes() -> None:
    picture = b"\x89PNG" + bytes(10**6)
    assert estimate_prompt_tokens(request(pictures=[picture])) == PROMPT + 1000


@pytest.mark.parametrize("code", [429, 503])
def test_error_with_status_200_is_tried_again(code) -> None:
    reply = reply_to((200, {"error": {"code": code, "message": "busy"}}), completion())
    assert reply["generated_text"] == TEXT


def test_error_with_status_200_that_stays_has_its_reason() -> None:
    reply = reply_to((200, {"error": {"code": 502, "message": "model overloaded"}}))
    reason, detail = classify(reply[ERROR_COLUMN])
    assert reason == "synthesis-server-error"
    assert "model overloaded" in detail


def test_wrong_address_with_status_200_stops_the_run() -> None:
    with pytest.raises(UserError, match="Unexpected endpoint") as stop:
        reply_to((200, {"error": "Unexpected endpoint or method. (POST /chat/completions)"}))
    assert "/v1" in stop.value.hint


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        ((400, [{"error": {"code": 400, "message": "API key not valid."}}]), "api_key_env"),
        ((400, {"error": {"message": "Your credit balance is too low"}}), "credit"),
        ((429, [{"error": {"message": "You exceeded your current quota"}}]), "credit"),
        ((500, {"error": {"message": "OpenAIException - insufficient_quota"}}), "credit"),
        ((400, {"error": "Invalid model name passed in model=x."}), "synthesis.model"),
        ((400, {"error": {"message": "No models loaded.", "param": "model"}}), "synthesis.model"),
        ((500, {"detail": "The model `x` does not exist."}), "synthesis.model"),
    ],
)
def test_key_or_credit_or_model_stops_the_run_whatever_the_status(answer, advice) -> None:
    with pytest.raises(UserError) as stop:
        reply_to(answer, max_retries=0)
    assert advice in stop.value.hint


def test_refused_content_stops_no_run_and_keeps_its_reason_whatever_field_says_it() -> None:
    said = {"code": "no permission", "error": "Content violates usage guidelines. Check: BIO"}
    blocked = {"error": {"message": "The request was rejected", "type": "content_filter"}}
    for answer in ((403, said), (400, blocked)):
        assert classify(reply_to(answer)[ERROR_COLUMN])[0] == "synthesis-refused"


def asked_as(replies, num_requests: int) -> list[str]:
    """The response formats that a server was asked for, one request after the other."""
    requests = [request(f"r{number}") for number in range(num_requests)]
    with serving(scripted(*replies)) as server:
        ask(settings_for(server.url, concurrency=1, max_retries=0), *requests)
        return [body.get("response_format", {}).get("type", "none") for body in server.bodies]


def test_lesson_that_has_not_helped_is_forgotten() -> None:
    no = (400, {"error": "The value does not match the expected schema."})
    assert asked_as([no, no, no, completion()], 2) == [
        "json_schema", "json_object", "none", "json_schema",
    ]  # fmt: skip
    assert asked_as([no, completion()], 2) == ["json_schema", "json_object", "json_object"]


def test_server_that_refuses_both_of_two_names_is_not_asked_for_ever() -> None:
    reply = reply_to((400, {"error": "max_tokens and max_completion_tokens are not supported"}))
    assert classify(reply[ERROR_COLUMN])[0] == "synthesis-engine-error"
    assert reply["notices"] == ""


def test_what_a_server_could_not_make_json_of_is_an_answer() -> None:
    error = {"code": "json_validate_failed", "message": "Generated JSON does not match the schema"}
    failed = (400, {"error": {**error, "failed_generation": f"Sure! {TEXT}"}})
    assert asked_as([failed, completion()], 2) == ["json_schema"] * 2
    reply = reply_to(failed)
    assert (reply["generated_text"], reply[ERROR_COLUMN]) == (f"Sure! {TEXT}", "")
    assert reply["num_billed_tokens"] == PROMPT + estimate_tokens(f"Sure! {TEXT}")


def test_key_is_in_no_detail_that_a_server_sends_back() -> None:
    said = f"Not with \ud83d {KEY}"
    answers = [
        completion(None, refusal=said), (400, {"error": said}), (200, {"error": said}),
        (500, said.encode("utf-8", "replace")), (400, {"error": f"{KEY}: seed is not supported"}),
    ]  # fmt: skip
    for answer in answers:
        reply = reply_to(answer, key=KEY, max_retries=0)
        assert reply[ERROR_COLUMN]
        assert KEY not in str(reply)


def test_long_pause_is_waited_for_and_told(monkeypatch) -> None:
    monkeypatch.setattr(client, "_MAX_OF_THE_PACKAGE_S", 0.05)
    busy = (429, {"error": "slow down"}, {"Retry-After": "0.1"})
    reply = reply_to(busy, completion(usage=usage()), max_retries=0)
    assert reply["generated_text"] == TEXT
    assert "pause of 1 min (Retry-After), and the run has waited" in reply["notices"]


@pytest.mark.parametrize(
    ("headers", "body", "pause_s"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, "", 1.5),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, "again in 7s", 0),
        ({}, "Rate limit reached. Please try again in 1m26.4s.", 86.4),
        ({}, "Please try again in 20ms.", None),
        ({}, '{"details": [{"retryDelay": "43s"}]}', 43),
        ({}, "Please retry after 6 seconds", 6),
        ({}, "slow down", None),
    ],
)
def test_pause_is_read_of_the_headers_or_else_of_the_words(headers, body, pause_s) -> None:
    assert client.asked_pause(429, headers, body) == pytest.approx(pause_s)
    assert headers or client.asked_pause(400, headers, body) is None


@pytest.mark.parametrize("after", ["7200", "Fri, 31 Dec 2999 23:59:59 GMT"])
def test_pause_that_is_too_long_stops_the_run_and_says_how_long_it_is(after) -> None:
    with pytest.raises(UserError, match="asks for a pause of ") as stop:
        reply_to((429, {"error": "come back tomorrow"}, {"Retry-After": after}))
    with pytest.raises(UserError, match="asks for a pause of 7200 s"):
        reply_to((429, {"error": "slow down"}, {"retry-after-ms": "7200000"}))
    assert stop.value.exit_code == 1
    assert "What was answered stays" in stop.value.hint


def test_pause_of_what_is_not_tried_again_is_none() -> None:
    with pytest.raises(UserError, match="404"):
        reply_to((404, {"error": "no"}, {"Retry-After": "7200"}))


@pytest.mark.parametrize("after", ["soon", "", "-5", "nan", "Fri, 31 Dec 9999"])
def test_pause_that_is_no_time_is_none(after) -> None:
    busy = (503, {"error": "slow down"}, {"Retry-After": after})
    assert reply_to(busy, completion())["generated_text"] == TEXT
