import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.synthesis.critics import Candidate, CriticSettings
from pipeline.synthesis.critics.judge import judge_messages, judge_schema, parse_judgement
from tests.pipeline.synthesis.critics.test_critics import HOSTILE

SETTINGS = CriticSettings()


def answer(**changes: object) -> str:
    return json.dumps({"faithful": 5, "natural": 4, "useful": 4, "why": "It is fine."} | changes)


@pytest.mark.parametrize("form", ["sentence", "style", "absent"])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_stays_a_string_of_the_prompt(text: str, form: str) -> None:
    plain = Candidate(form=form, text="x", captions=("x",), style="x")
    hostile = Candidate(form=form, text=text, captions=(text,), style=text)
    (before,), (after,) = judge_messages(plain), judge_messages(hostile)
    assert before["role"] == after["role"] == "user"
    assert len(before["content"].splitlines()) == len(after["content"].splitlines())
    line = after["content"].splitlines()[1]
    assert set(json.loads(line)) == {"record", "text"} | ({"style"} if form == "style" else set())
    assert "<|im_" not in after["content"]


def test_rubric_of_a_negative_asks_for_the_contrary() -> None:
    of = {
        form: judge_messages(Candidate(form=form, text="a dog", captions=("cat",)))[0]["content"]
        for form in ("sentence", "style", "absent")
    }
    assert len(set(of.values())) == 3
    assert "does not show" in of["absent"]


def test_worst_mark_is_the_score() -> None:
    fine = parse_judgement(answer(), SETTINGS)
    assert fine is not None
    assert (fine.score, fine.reason, fine.detail) == (0.75, "", "")
    poor = parse_judgement(answer(faithful=1, why='it says "blue"'), SETTINGS)
    assert poor is not None
    assert (poor.score, poor.reason) == (0.0, "synthesis-judged-poor")
    assert poor.detail == 'it says "blue"'
    silent = parse_judgement(answer(natural=2, why=""), SETTINGS)
    assert silent is not None
    assert silent.detail == "it is not natural"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sure!",
        "[1]",
        "{}",
        "[" * 100_000,
        answer(faithful=0),
        answer(faithful=6),
        answer(useful="5"),
        answer(natural=True),
        answer(natural=4.5),
        answer(natural=None),
    ],
)
def test_answer_that_says_nothing_gives_no_verdict(text: str) -> None:
    assert parse_judgement(text, SETTINGS) is None


@given(st.text())
def test_any_answer_is_parsed_or_none(text: str) -> None:
    verdict = parse_judgement(text, SETTINGS)
    assert verdict is None or 0 <= verdict.score <= 1


def test_schema_asks_for_what_the_parser_reads() -> None:
    schema = judge_schema()
    assert schema["required"] == list(json.loads(answer()))
