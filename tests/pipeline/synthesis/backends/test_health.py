import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import FAILED, UserError
from pipeline.synthesis.backends.errors import PROMPT_TOO_LONG, SERVER_ERROR, describe
from pipeline.synthesis.backends.health import MOST_USELESS, NUM_FIRST, FirstAnswers, Health

DOWN = describe(SERVER_ERROR, "503: overloaded")
TOO_LONG = describe(PROMPT_TOO_LONG, "8192 tokens")


def after(*errors: str) -> Health:
    health = Health("openai")
    for error in errors:
        health.note(error)
    return health


def test_backend_that_fails_most_requests_stops_the_run_with_the_cause() -> None:
    with pytest.raises(UserError) as raised:
        after(*[""] * 24, *[DOWN] * 26).check()
    assert raised.value.message == (
        "synthesis: 26 of the last 50 requests have failed; the last: 503: overloaded "
        "(synthesis-server-error)"
    )
    assert "synthesis.endpoint" in raised.value.hint
    assert raised.value.exit_code == FAILED


def test_backend_that_fails_later_stops_the_run_too() -> None:
    with pytest.raises(UserError, match="26 of the last 50"):
        after(*[""] * 5000, *[DOWN] * 26).check()


@given(st.lists(st.sampled_from(["", DOWN, TOO_LONG]), max_size=49))
def test_few_requests_are_no_reason_to_stop(errors) -> None:
    after(*errors).check()


def test_what_is_the_requests_own_fault_is_no_reason_to_stop() -> None:
    health = after(*[TOO_LONG] * 200)
    health.check()
    health.check_at_the_end()


def test_few_requests_without_one_answer_are_not_rejected() -> None:
    with pytest.raises(UserError, match="2 of the last 2"):
        after(DOWN, DOWN).check_at_the_end()


@pytest.mark.parametrize("errors", [(DOWN,), ("", DOWN, DOWN, DOWN), (DOWN, DOWN, TOO_LONG)])
def test_failure_beside_answers_or_alone_is_the_requests_own(errors) -> None:
    after(*errors).check_at_the_end()


USELESS = ("synthesis-malformed-json", "Sure! Here it is")


def first(*answers: tuple[str, ...]) -> FirstAnswers:
    found = FirstAnswers()
    for answer in answers:
        found.note(*answer)
    return found


def test_run_whose_first_answers_are_of_no_use_stops_with_reason_and_example() -> None:
    cut = ("synthesis-cut-off", "all tokens went to reasoning")
    found = first(*[()] * 4, *[cut] * 10, *[USELESS] * 36)
    with pytest.raises(UserError) as raised:
        found.check()
    assert raised.value.message == (
        "synthesis: 46 of the first 50 answers are of no use, 36 of them for "
        "synthesis-malformed-json. For example: Sure! Here it is"
    )
    assert "response_format" in raised.value.hint
    assert "What was answered stays" in raised.value.hint
    assert raised.value.exit_code == FAILED


@given(st.lists(st.sampled_from([(), USELESS]), max_size=200))
def test_only_the_first_answers_can_stop_a_run_and_only_nearly_all_of_them(answers) -> None:
    if answers[:NUM_FIRST].count(USELESS) <= MOST_USELESS:
        first(*answers).check()
    else:
        with pytest.raises(UserError):
            first(*answers).check()


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("synthesis-cut-off", "synthesis.max_tokens"),
        ("synthesis-refused", "synthesis.templates"),
        ("synthesis-empty", "the prompt"),
    ],
)
def test_remedy_is_that_of_the_commonest_reason(reason, hint) -> None:
    with pytest.raises(UserError) as raised:
        first(*[(reason, "so")] * NUM_FIRST).check()
    assert hint in raised.value.hint
