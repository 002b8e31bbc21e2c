import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.synthesis.forms import FORMS, forms_of
from pipeline.synthesis.parsing import Answer, parse

OPENING = "A pencil sketch of"
TEXTS = {
    "tags": "apple, fruit",
    "sentence": "A picture of an apple.",
    "dense": "The picture shows an apple. It is red.",
    "style": "A pencil sketch of an apple.",
    "absent": "pear, plum",
    "contrast": "A picture of a pear.",
    "question": "What is an apple? It is a fruit.",
    "description": "An apple is a round fruit.",
    "dialogue": "A: Where is the apple? B: Here.",
    "bridge": "Beside the apple lies a pear.",
}


def parsed(text: str, *, caption: str = "red apple", complete: bool = True, **own: str) -> Answer:
    forms = list(FORMS)
    return parse(text, forms=forms, caption=caption, opening=OPENING, own=own, complete=complete)


def answer(**changes: str) -> str:
    return json.dumps(TEXTS | changes)


def test_good_answer_gives_a_text_of_each_form() -> None:
    found = parsed(answer())
    assert found.texts == TEXTS
    assert not found.rejected


@pytest.mark.parametrize(
    ("text", "complete", "reason"),
    [
        ('{"sentence":"A red', False, "synthesis-cut-off"),
        ('{"sentence":"A red', True, "synthesis-malformed-json"),
        ("Sure! Here it is:", True, "synthesis-malformed-json"),
        ("[1, 2]", True, "synthesis-malformed-json"),
        ("[" * 100_000, True, "synthesis-malformed-json"),
        ("  ", True, "synthesis-empty"),
        ("{}", True, "synthesis-empty"),
        ('{"note": "hello"}', True, "synthesis-empty"),
        ("<think>hm</think>", True, "synthesis-empty"),
        ("", False, "synthesis-cut-off"),
        ("<think>hm", False, "synthesis-cut-off"),
        ('{"note": "hello"} {"tags": "a', False, "synthesis-cut-off"),
    ],
)
def test_useless_answer_is_rejected_for_every_form(text: str, complete: bool, reason: str) -> None:
    found = parsed(text, complete=complete)
    assert not found.texts
    assert {form: why.reason for form, why in found.rejected.items()} == dict.fromkeys(
        FORMS, reason
    )


def test_answer_is_read_out_of_what_is_around_it() -> None:
    found = parsed(f"<think>Hm, {{so}}.</think>\n```json\n{answer()}\n```", complete=False)
    assert found.texts == TEXTS


@pytest.mark.parametrize(
    ("changes", "form", "reason"),
    [
        ({"sentence": "The red apple."}, "sentence", "synthesis-repeats-record"),
        ({"sentence": " "}, "sentence", "synthesis-empty"),
        ({"sentence": "word " * 60}, "sentence", "synthesis-too-long"),
        ({"style": "A photograph of an apple."}, "style", "synthesis-wrong-style"),
        ({"absent": "a red apple"}, "absent", "synthesis-repeats-record"),
        ({"absent": "apple, red, apples"}, "absent", "synthesis-repeats-record"),
        ({"contrast": "A red apple."}, "contrast", "synthesis-repeats-record"),
    ],
)
def test_faulty_text_is_rejected_alone(changes: dict[str, str], form: str, reason: str) -> None:
    found = parsed(answer(**changes))
    assert set(found.texts) == set(FORMS) - {form}
    assert found.rejected[form].reason == reason


def test_list_of_absent_things_keeps_only_what_neither_record_nor_caption_names() -> None:
    texts = answer(absent="apple, pear, pear, green pear, picture")
    found = parsed(texts, sentence="A picture of an apple.")
    assert found.texts["absent"] == "pear, green pear"


@given(st.text() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_any_answer_is_taken_or_refused(text: str) -> None:
    for kind in ("caption", "style", "negative", "text", "interleave"):
        forms = forms_of(kind)
        found = parse(text, forms=forms, caption="red apple", opening=OPENING, complete=True)
        assert set(found.texts) | set(found.rejected) == set(forms)
