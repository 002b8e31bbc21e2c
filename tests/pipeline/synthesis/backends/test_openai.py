"""The backend against a server that fails: real sockets, a real Ray dataset."""

import asyncio
import json
import socket
from collections.abc import Iterator

import pyarrow as pa
import pytest
from pydantic import SecretStr

from pipeline.engine.faults import as_user_error
from pipeline.engine.ray_session import connect_to_ray
from pipeline.errors import UserError
from pipeline.synthesis.backends import answer
from pipeline.synthesis.backends.errors import classify
from pipeline.synthesis.backends.openai import Asker
from pipeline.synthesis.requests import ERROR_COLUMN, PASSED_BY
from pipeline.synthesis.settings import SynthesisSettings
from tests.pipeline.synthesis.backends.server import KEY, FaultyServer, serving

CARRIED = ("record_id", "seed")
pytestmark = pytest.mark.e2e
VARIABLE = "ANYMIX_TEST_KEY"

ENDS = {
    "no-fault": "",
    "500-once": "",
    "503-once": "",
    "close-once": "",
    "html-once": "",
    "hang-once": "",
    "retry-after-seconds": "",
    "retry-after-date": "",
    "not-json": "",
    "cut": "",
    "empty": "",
    "400": "synthesis-engine-error",
    "422": "synthesis-engine-error",
    "400-context": "synthesis-prompt-too-long",
    "413": "synthesis-prompt-too-long",
    "400-filter": "synthesis-refused",
    "403-moderation": "synthesis-refused",
    "refusal": "synthesis-refused",
    "filtered": "synthesis-refused",
    "500": "synthesis-server-error",
    "503": "synthesis-server-error",
    "close": "synthesis-server-error",
    "hang": "synthesis-timeout",
    "drip": "synthesis-timeout",
    "garbage": "synthesis-malformed-response",
    "html": "synthesis-malformed-response",
    "empty-body": "synthesis-malformed-response",
    "other-json": "synthesis-malformed-response",
}
"""The faults that a request may meet, and the reject codes that they end with; empty: an answer."""

NOT_SENT_AGAIN = [
    "no-fault", "400", "422", "400-context", "413", "400-filter", "403-moderation", "refusal",
    "filtered", "not-json", "cut", "empty",
]  # fmt: skip


def request(fault: str, **changes) -> dict:
    schema = {"type": "object", "properties": {"sentence": {"type": "string"}}}
    return {
        "record_id": fault,
        "seed": 7,
        "request": fault,
        ERROR_COLUMN: "",
        "messages": [
            {"role": "system", "content": "You describe pictures."},
            {"role": "user", "content": f"fault-{fault}"},
        ],
        "sampling_params": {
            "temperature": 0.3,
            "top_p": 1.0,
            "max_tokens": 16,
            "seed": 7,
            "structured_outputs": {"json": json.dumps(schema)},
        },
    } | changes


def settings_for(url: str, **changes) -> SynthesisSettings:
    endpoint = {"base_url": url, "api_key_env": VARIABLE, "timeout_s": 1, "max_retries": 1}
    return SynthesisSettings(backend="openai", model="served", endpoint=endpoint | changes)


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyServer]:
    with serving() as faulty:
        yield faulty


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, KEY)
        connect_to_ray()
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def answered(local_ray, server) -> dict[str, dict]:
    """What became of one request for each fault, all in one dataset."""
    import ray

    rows = [request(fault) for fault in ENDS]
    rows.append(request("passes", **{ERROR_COLUMN: PASSED_BY}))
    dataset = answer(settings_for(server.url), ray.data.from_items(rows), carried=CARRIED)
    return {row["record_id"]: row for row in dataset.iter_rows()}


@pytest.mark.parametrize("fault", ENDS)
def test_every_fault_ends_in_an_answer_or_a_reason_of_its_own(answered, fault) -> None:
    row = answered[fault]
    error = row[ERROR_COLUMN]
    assert (classify(error)[0] if error else "") == ENDS[fault], error
    assert (row["generated_text"] is None) == bool(error)
    assert row["seed"] == 7


def test_no_request_is_lost_or_answered_twice(answered) -> None:
    assert sorted(answered) == sorted([*ENDS, "passes"])


def test_row_that_is_marked_is_not_sent(answered, server) -> None:
    assert answered["passes"][ERROR_COLUMN] == PASSED_BY
    assert server.tries_of("fault-passes") == 0


@pytest.mark.parametrize("fault", ENDS)
def test_what_another_try_may_mend_is_sent_again_and_nothing_else(answered, server, fault) -> None:
    assert server.tries_of(f"fault-{fault}") == (1 if fault in NOT_SENT_AGAIN else 2)


def test_answer_tells_its_tokens_and_why_it_ended(answered) -> None:
    good, cut = answered["no-fault"], answered["cut"]
    assert json.loads(good["generated_text"]) == {"sentence": "A picture of something."}
    assert (good["num_input_tokens"], good["num_generated_tokens"]) == (30, 7)
    assert (good["finish_reason"], cut["finish_reason"]) == ("stop", "length")
    assert answered["empty"]["generated_text"] == ""


def test_server_is_asked_with_the_sampling_of_the_request(answered, server) -> None:
    body = server.bodies[0]
    assert body["model"] == "served"
    same = {"temperature": 0.3, "top_p": 1.0, "max_tokens": 16, "seed": 7}
    assert same.items() <= body.items()
    assert body["response_format"]["json_schema"]["schema"]["properties"] == {
        "sentence": {"type": "string"}
    }
    assert server.keys == {f"Bearer {KEY}"}


def test_key_that_is_refused_stops_the_run_and_stays_unseen(local_ray, server) -> None:
    import ray

    dataset = answer(
        settings_for(server.url), ray.data.from_items([request("401")]), carried=CARRIED
    )
    with pytest.raises(ray.exceptions.RayError) as raised:
        list(dataset.iter_rows())
    error = as_user_error(raised.value)
    assert error is not None
    assert "401" in error.message
    assert VARIABLE in error.hint
    assert KEY not in str(error)
    assert KEY not in str(raised.value)


def ask(settings: SynthesisSettings, *faults: str, key: str | None = KEY) -> list[dict]:
    """What the backend's actor makes of some requests."""
    batch = pa.Table.from_pylist([request(fault) for fault in faults])
    asker = Asker(settings, SecretStr(key) if key else None, CARRIED)
    return asyncio.run(asker(batch)).to_pylist()


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("401", VARIABLE),
        ("403", VARIABLE),
        ("404", "synthesis.model"),
        ("402", "credit"),
        ("quota", "credit"),
    ],
)
def test_what_every_request_would_meet_stops_at_once(server, fault, named) -> None:
    with pytest.raises(UserError) as raised:
        ask(settings_for(server.url, max_retries=0), fault)
    assert named in raised.value.hint
    assert KEY not in str(raised.value)


def test_address_where_nothing_listens_stops() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(UserError, match="no connection to http") as raised:
            ask(settings_for(url), "no-fault")
    assert "2 tries" in raised.value.message


def test_variable_that_is_not_set_stops_before_any_work(monkeypatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(UserError, match=VARIABLE):
        answer(settings_for("http://localhost/v1"), None, carried=CARRIED)


def test_no_key_is_sent_where_none_is_named(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)  # the package's own
    with serving() as server:
        (row,) = ask(settings_for(server.url, api_key_env=None), "no-fault", key=None)
        assert (row[ERROR_COLUMN], server.keys) == ("", {None})
