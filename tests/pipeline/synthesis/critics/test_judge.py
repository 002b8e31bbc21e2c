import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.synthesis.critics import Candidate, CriticSettings
from pipeline.synthesis.critics.judge import judge_messages, judge_schema, parse_judgement
from pipeline.synthesis.prompts import JUDGE, load_prompts
from pipeline.synthesis.settings import SynthesisSettings
from tests.pipeline.synthesis.critics.test_critics import HOSTILE

SETTINGS = CriticSettings()


TEMPLATE = load_prompts(SynthesisSettings()).templates[JUDGE]


def answer(**changes: object) -> str:
    said = {"faithful": 5, "natural": 4, "useful": 4, "why": "It is fine."} | changes
    return json.dumps({"sentence": said})


@pytest.mark.parametrize("form", ["sentence", "style", "absent"])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_stays_a_string_of_the_prompt(text: str, form: str) -> None:
    plain = Candidate(form=form, text="x", captions=("x",), style="x")
    hostile = Candidate(form=form, text=text, captions=(text,), style=text)
    (before,), (after,) = judge_messages(TEMPLATE, [plain]), judge_messages(TEMPLATE, [hostile])
    assert before["role"] == after["role"] == "user"
    assert len(before["content"].splitlines()) == len(after["content"].splitlines())
    line = after["content"].splitlines()[1]
    assert set(json.loads(line)) == {"record", "texts"} | ({"style"} if form == "style" else set())
    assert "<|im_" not in after["content"]


def test_rubric_of_a_negative_asks_for_the_contrary() -> None:
    of = {
        form: judge_messages(TEMPLATE, [Candidate(form=form, text="a dog", captions=("cat",))])[0]
        for form in ("sentence", "style", "absent", "question", "bridge")
    }
    assert len({message["content"].replace(form, "") for form, message in of.items()}) == 5
    assert "does not show" in of["absent"]["content"]


def test_texts_of_an_answer_are_judged_together() -> None:
    texts = {"tags": "cat, dog", "sentence": "A cat and a dog."}
    candidates = [Candidate(form=form, text=text, captions=("x",)) for form, text in texts.items()]
    (message,) = judge_messages(TEMPLATE, candidates)
    assert json.loads(message["content"].splitlines()[1])["texts"] == texts
    assert list(judge_schema(list(texts))["properties"]) == list(texts)  # type: ignore[call-overload]


def test_worst_mark_is_the_score() -> None:
    fine = parse_judgement(answer(), "sentence", SETTINGS)
    assert fine is not None
    assert (fine.score, fine.reason, fine.detail) == (0.75, "", "")
    poor = parse_judgement(answer(faithful=1, why='it says "blue"'), "sentence", SETTINGS)
    assert poor is not None
    assert (poor.score, poor.reason) == (0.0, "synthesis-judged-poor")
    assert poor.detail == 'it says "blue"'
    silent = parse_judgement(answer(natural=2, why=""), "sentence", SETTINGS)
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
    assert parse_judgement(text, "sentence", SETTINGS) is None


@given(st.text())
def test_any_answer_is_parsed_or_none(text: str) -> None:
    verdict = parse_judgement(text, "sentence", SETTINGS)
    assert verdict is None or 0 <= verdict.score <= 1


def test_schema_asks_for_what_the_parser_reads() -> None:
    schema = judge_schema(["sentence"])["properties"]["sentence"]  # type: ignore[index]
    assert schema["required"] == list(json.loads(answer())["sentence"])
