import pytest
from pydantic import ValidationError

from pipeline.selection.cuts import cuts_settings
from pipeline.selection.settings import Ramp, Rule, SelectSettings, Top


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"min": 1, "quantile": 0.1},
        {"quantile": 1.5},
        {"min": 1, "within": "source"},
        {"quantile": 0.1, "within": "colour"},
    ],
)
def test_a_rule_that_says_nothing_or_too_much_is_refused(rule):
    with pytest.raises(ValidationError):
        Rule(**rule)


@pytest.mark.parametrize(
    "top",
    [
        {"score": "clip_score"},
        {"score": "clip_score", "share": 0.3, "most": 5},
        {"score": "clip_score", "share": 0},
        {"score": "clip", "share": 0.3},
    ],
)
def test_a_top_needs_a_score_that_is_there_and_one_size(top):
    with pytest.raises(ValidationError):
        Top(**top)


def test_an_unknown_score_is_answered_with_those_that_are_there():
    with pytest.raises(ValidationError) as error:
        SelectSettings(rules={"clip": {"min": 1}})
    for name in ("clip_score", "caption_quality", "short_side", "entropy", "chance"):
        assert name in str(error.value)
    assert "shuffled" not in str(error.value)


def test_a_ramp_rises():
    with pytest.raises(ValidationError, match="low must be less than high"):
        Ramp(low=0.3, high=0.2)


def test_one_top_may_stand_without_a_list():
    top = {"score": "clip_score", "share": 0.3, "within": "source"}
    assert SelectSettings(top=top).top == [Top(**top)]


def test_fixed_limits_and_what_decides_no_end_leave_the_cuts_as_they_are():
    one = SelectSettings(rules={"clip_score": {"quantile": 0.1}, "entropy": {"min": 1}})
    other = SelectSettings(rules={"clip_score": {"quantile": 0.1}}, mixed_share=0.9)
    assert cuts_settings(one) == cuts_settings(other)


def test_a_top_is_cut_anew_when_the_rules_before_it_change():
    top = {"score": "clip_score", "share": 0.3}
    one, other = (SelectSettings(rules={"entropy": {"min": limit}}, top=top) for limit in (1, 2))
    assert cuts_settings(one) != cuts_settings(other)
    assert cuts_settings(one) == cuts_settings(one.model_copy(update={"mixed_share": 0.9}))
