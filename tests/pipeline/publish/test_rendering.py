"""Numbers read the same everywhere, and text from outside stays text."""

import pytest

from pipeline.publish import rendering


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (123, "2 min 3 s"), (4320, "1 h 12 min")],
)
def test_durations_have_two_units_at_most(value: float, words: str) -> None:
    assert rendering.duration(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (450_560, "450.6 kB"), (3.2e12, "3.2 TB")],
)
def test_sizes_take_the_unit_that_keeps_them_short(value: float, words: str) -> None:
    assert rendering.size(value) == words


def test_share_of_nothing_is_a_dash() -> None:
    assert rendering.percent(0, 0) == "-"
    assert rendering.percent(1, 3) == "33.3 %"


def test_scores_have_three_digits_that_count() -> None:
    assert [rendering.score(value) for value in (0.18349, 32.0, 1024.0)] == ["0.183", "32", "1,024"]


def test_markdown_from_outside_is_plain_and_on_one_line() -> None:
    assert rendering.markdown("a | b\n<i>*c*</i> `d`") == r"a \| b &lt;i\>\*c\*&lt;/i\> \`d\`"
