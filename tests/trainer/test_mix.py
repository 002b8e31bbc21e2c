from hypothesis import given
from hypothesis import strategies as st

from trainer.mix import STREAMS, next_stream, shares

weights = st.fixed_dictionaries(dict.fromkeys(STREAMS, st.floats(0.1, 10)))
lengths = st.lists(st.integers(1, 256), min_size=1, max_size=300)


@given(weights, lengths)
def test_no_stream_is_ever_more_than_one_document_behind_its_share(
    weights: dict[str, float], lengths: list[int]
) -> None:
    num_tokens = dict.fromkeys(weights, 0)
    for length in lengths:
        num_tokens[next_stream(weights, num_tokens)] += length
        served = [num_tokens[stream] / weights[stream] for stream in weights]
        assert max(served) - min(served) <= max(lengths) / min(weights.values()) + 1e-9


def test_a_2_2_1_mix_is_kept_to_the_token() -> None:
    weights = {"text": 2.0, "image": 2.0, "mixed": 1.0}
    num_tokens = dict.fromkeys(weights, 0)
    for _ in range(500):
        num_tokens[next_stream(weights, num_tokens)] += 10
    assert shares(num_tokens) == {"text": 0.4, "image": 0.4, "mixed": 0.2}


def test_shares_of_nothing_are_zero() -> None:
    assert shares({"text": 0, "image": 0}) == {"text": 0.0, "image": 0.0}
