import re

import pytest

from pipeline.synthesis.forms import FORMS, KINDS, forms_of, json_schema

EXAMPLES = {
    "tags": "apple, red, fruit",
    "sentence": "A picture of a red apple.",
    "dense": "The picture shows an apple. It is red.",
    "style": "A pencil sketch (soft) of an apple.",
    "absent": "pear, plum",
    "contrast": "A picture of a green apple.",
    "question": "What is an apple? It is a fruit.",
    "description": "An apple is a round fruit that grows on trees.",
    "dialogue": "A: Where is the apple? B: It lies on the table.",
    "bridge": "Beside the apple lies a pear.",
}


@pytest.mark.parametrize("name", FORMS)
def test_pattern_takes_an_example_and_nothing_that_breaks_the_json(name: str) -> None:
    schema = json_schema([name], "A pencil sketch (soft) of")
    pattern = schema["properties"][name]["pattern"]  # type: ignore[index]
    assert re.fullmatch(pattern, EXAMPLES[name])
    for bad in ("", " ", f"{EXAMPLES[name]}\n", f'{EXAMPLES[name]}"', EXAMPLES[name] + "\\"):
        assert not re.fullmatch(pattern, bad)


def test_every_kind_has_forms_and_every_form_a_kind() -> None:
    assert [name for kind in KINDS for name in forms_of(kind)] == list(FORMS)
    assert len(forms_of("caption")) == 3


def test_schema_asks_for_the_forms_and_nothing_else() -> None:
    schema = json_schema(["tags", "dense"], "A pencil sketch of")
    assert list(schema["properties"]) == schema["required"] == ["tags", "dense"]  # type: ignore[call-overload]
    assert schema["additionalProperties"] is False
