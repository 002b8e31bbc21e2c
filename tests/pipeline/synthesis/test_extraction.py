"""JSON out of whatever an LLM writes around it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.synthesis.extraction import find_object, without_thoughts

ANSWER = {"tags": "apple, fruit", "sentence": "A picture of an apple {whole}."}
PLAIN = json.dumps(ANSWER)
NAMES = ["tags", "sentence"]

WRAPPED = {
    "alone": PLAIN,
    "behind a byte order mark": f"\ufeff{PLAIN}",
    "after reasoning": f"<think>\nThe text says {{so}}.\n</think>\n\n{PLAIN}",
    "after reasoning with another object": f'<think>{{"tags": "draft"}}</think>{PLAIN}',
    "after reasoning whose start the chat template has swallowed": f"It says so.</think>{PLAIN}",
    "after reasoning in Magistral's marks": f"[THINK]It says so.[/THINK]{PLAIN}",
    "in gpt-oss's final channel":
        f"<|channel|>analysis<|message|>{{so}}<|end|><|channel|>final<|message|>{PLAIN}",
    "in a code fence": f"```json\n{PLAIN}\n```",
    "in prose": f"Sure! Here it is: {PLAIN} I hope that {{this}} helps.",
    "after the prompt's own object": f'{{"text": "apple"}} {PLAIN}',
    "in a tool call": f'<tool_call>{{"name": "answer", "arguments": {PLAIN}}}</tool_call>',
    "nested": json.dumps({"answer": {"result": ANSWER}}),
    "listed": json.dumps([ANSWER]),
    "with keys in another case": json.dumps({key.upper(): each for key, each in ANSWER.items()}),
    "with more keys": json.dumps(ANSWER | {"note": "hello", "score": 1}),
    "with a comma behind its last value": PLAIN[:-1] + ",}",
    "with single quotes": str(ANSWER),
    "as JSON in a JSON string": json.dumps(PLAIN),
    "before another turn": f'{PLAIN}\n[user]\n{{"text": "dog"}}\n{{"tags": "dog, animal"}}',
}  # fmt: skip


@pytest.mark.parametrize("text", WRAPPED.values(), ids=WRAPPED)
def test_answer_is_found_whatever_is_around_it(text) -> None:
    assert find_object(text, NAMES) == ANSWER


def test_line_break_in_a_text_is_read_outside_strict_json() -> None:
    assert find_object('{"tags": "a,\nb"}', NAMES) == {"tags": "a,\nb"}


def test_marks_inside_the_answer_are_its_own() -> None:
    answer = {"tags": "a</think>b"}
    assert find_object(json.dumps(answer), NAMES) == answer


@pytest.mark.parametrize(
    "text",
    ["", "Sure!", PLAIN[:40], f"<think>{PLAIN}", "[1, 2]", "null", "[" * 10**6, "{" * 10**6,
     "{'a':" * 800, "{" + "-" * 4000 + "1}", "{'a': 1 +}"],
)  # fmt: skip
def test_what_holds_no_whole_object_gives_none(text) -> None:
    assert find_object(text, NAMES) is None


@pytest.mark.parametrize("text", ["{}", '{"note": "hello"}', '[{"note": 1}] {"other": 2}'])
def test_other_objects_are_told_from_none(text) -> None:
    assert find_object(text, NAMES) == {}


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_answer_behind_any_reasoning_is_found(thoughts, more) -> None:
    text = f"<think>{thoughts}</think>{json.dumps(more | ANSWER)}"
    assert find_object(text, NAMES) is not None


@pytest.mark.parametrize("text", ["<think>so", "<think>so</think>\n", "[THINK]so", " \ufeff "])
def test_reasoning_alone_is_no_answer(text) -> None:
    assert without_thoughts(text) == ""
