from hypothesis import given
from hypothesis import strategies as st

from trainer.data.mix import STREAMS, quota, shares

weights = st.fixed_dictionaries(dict.fromkeys(STREAMS, st.floats(0.1, 10)))


@given(weights, st.integers(0, 10**12))
def test_quotas_sum_up_and_are_within_one_of_the_shares(
    weights: dict[str, float], total: int
) -> None:
    given_out = quota(weights, total)
    assert sum(given_out.values()) == total
    for stream, share in shares(weights).items():
        assert abs(given_out[stream] - share * total) <= 1 + total * 1e-12


def test_a_2_2_1_mix_is_kept_to_the_token() -> None:
    weights = {"text": 2.0, "image": 2.0, "mixed": 1.0}
    assert quota(weights, 5000) == {"text": 2000, "image": 2000, "mixed": 1000}


def test_shares_of_nothing_are_zero() -> None:
    assert shares({"text": 0, "image": 0}) == {"text": 0.0, "image": 0.0}
