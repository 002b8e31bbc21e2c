from hypothesis import given
from hypothesis import strategies as st

from pipeline.synthesis.backends.pace import Pace


def test_requests_are_spread_over_the_minute() -> None:
    pace = Pace(120)
    assert [pace.reserve(1, now=0.0) for _ in range(4)] == [0.0, 0.5, 1.0, 1.5]


def test_time_without_requests_is_not_saved_up() -> None:
    pace = Pace(60)
    pace.reserve(1, now=0.0)
    assert [pace.reserve(1, now=100.0) for _ in range(2)] == [0.0, 1.0]


def test_large_request_holds_the_next_one_back_for_longer() -> None:
    pace = Pace(600)
    assert [pace.reserve(amount, now=0.0) for amount in (50, 10)] == [0.0, 5.0]


def test_without_a_limit_nothing_waits() -> None:
    pace = Pace(None)
    assert [pace.reserve(1000, now=1.0) for _ in range(3)] == [0.0, 0.0, 0.0]


@given(
    st.lists(st.tuples(st.floats(0, 90), st.integers(1, 20)), min_size=1, max_size=60),
    st.integers(20, 200),
)
def test_no_minute_holds_more_than_its_limit_and_one_request(asked, per_minute) -> None:
    pace, now, sent = Pace(per_minute), 0.0, []
    for pause, amount in asked:
        now += pause
        sent.append((now + pace.reserve(amount, now), amount))
    for start, _ in sent:
        within = sum(amount for at, amount in sent if start <= at < start + 60)
        assert within <= per_minute + max(amount for _, amount in sent)
