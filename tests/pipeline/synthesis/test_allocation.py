from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.synthesis.allocation import chances, draw_style, form_arm, is_drawn, style_arm

COUNTS = st.dictionaries(
    st.text(max_size=8),
    st.tuples(st.integers(0, 1000), st.integers(0, 1000)).map(lambda two: (max(two), min(two))),
)


@given(COUNTS, st.floats(0.01, 1))
def test_best_arm_is_always_tried_and_none_less_than_the_floor(counts, floor: float) -> None:
    known = chances(counts, floor)
    assert all(floor <= chance <= 1 for chance in known.values())
    assert not counts or max(known.values()) == 1


def test_arm_that_fails_is_tried_in_proportion_to_what_is_taken() -> None:
    known = chances({"dense 1": (99, 19), "tags 1": (99, 79), "tags 2": (99, 0)}, 0.1)
    assert known == {"dense 1": 0.25, "tags 1": 1.0, "tags 2": 0.1}


def test_new_arm_is_tried() -> None:
    assert is_drawn({"dense 1": 0.1}, form_arm("tags", 1), "record")


@given(st.floats(0.05, 1))
def test_coin_falls_as_often_as_its_chance_and_always_the_same(chance: float) -> None:
    records = [str(number) for number in range(2000)]
    drawn = [is_drawn({"a": chance}, "a", record) for record in records]
    assert drawn == [is_drawn({"a": chance}, "a", record) for record in records]
    assert abs(sum(drawn) / 2000 - chance) < 0.05


def test_styles_are_drawn_evenly_without_experience_and_by_chance_with_it() -> None:
    styles = {name: f"A {name} of" for name in ("sketch", "mosaic", "fresco")}
    even = Counter(draw_style({}, styles, str(number)) for number in range(3000))
    assert min(even.values()) > 900
    known = {style_arm("fresco"): 0.2}
    drawn = Counter(draw_style(known, styles, str(number)) for number in range(3000))
    assert 0.15 < drawn["fresco"] / drawn["sketch"] < 0.25
