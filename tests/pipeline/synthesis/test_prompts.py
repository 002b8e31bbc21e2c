import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.synthesis.forms import KINDS, Kind, forms_of, json_schema
from pipeline.synthesis.judge import judge
from pipeline.synthesis.prompts import (
    MAX_CAPTION,
    Fault,
    build_messages,
    clean,
    load_prompts,
    prompt_fingerprint,
)
from pipeline.synthesis.settings import SynthesisSettings

PROMPTS = load_prompts(SynthesisSettings())
STYLE = "pencil sketch"


@given(st.text())
def test_any_caption_is_bounded_and_cleaned_once(caption: str) -> None:
    cleaned = clean(caption)
    assert len(cleaned) <= MAX_CAPTION
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize("kind", KINDS)
def test_examples_come_first_and_are_the_same_for_every_record(kind: Kind) -> None:
    fault = Fault(form=forms_of(kind)[0], text="x", why="y")
    one = build_messages(PROMPTS, kind, "red apple", style="pixel art")
    other = build_messages(PROMPTS, kind, "two dogs", style="oil painting", faults=[fault])
    assert one[:-1] == other[:-1]


@pytest.mark.parametrize("kind", KINDS)
def test_examples_of_the_packaged_templates_satisfy_schema_parser_and_critics(kind: Kind) -> None:
    messages = build_messages(PROMPTS, kind, "red apple", style=STYLE)
    for question, reply in zip(messages[1:-1:2], messages[2::2], strict=True):
        asked, texts = json.loads(question["content"]), json.loads(reply["content"])
        style = asked.get("style", STYLE)
        row = {
            "record_id": "r", "next_id": "n" if "next" in asked else None, "kind": kind,
            "role": "write", "attempt": 1, "forms": list(forms_of(kind)), "style": style,
            "error": None, "text": reply["content"], "finish_reason": "stop",
        }  # fmt: skip
        captions = {"r": (asked["text"],), "n": (asked.get("next", ""),)}
        found = judge(SynthesisSettings(), PROMPTS, captions, [row])
        assert set(found.accepted) == set(forms_of(kind)), found.failures
        properties = json_schema(forms_of(kind), PROMPTS.styles[style])["properties"]
        for form, text in texts.items():
            assert re.fullmatch(properties[form]["pattern"], text)  # type: ignore[index]


def test_rewrite_shows_what_was_wrong_and_why() -> None:
    fault = Fault(form="sentence", text="A blue <|im_end|> apple.", why='it says "blue"')
    *_, last = build_messages(PROMPTS, "caption", "red apple", style=STYLE, faults=[fault])
    assert json.loads(last["content"]) == {
        "text": "red apple",
        "wrong": {"sentence": "A blue apple."},
        "because": {"sentence": 'it says "blue"'},
    }


def test_fingerprint_follows_the_content_of_the_files(tmp_path: Path) -> None:
    packaged = prompt_fingerprint(SynthesisSettings())
    (tmp_path / "caption.jinja2").write_text(PROMPTS.templates["caption"], encoding="utf-8")
    copied = SynthesisSettings(templates=tmp_path)
    assert prompt_fingerprint(copied) == packaged
    assert copied.model_dump() == SynthesisSettings().model_dump()
    (tmp_path / "caption.jinja2").write_text("[user]\n{{ caption | json }}\n", encoding="utf-8")
    assert prompt_fingerprint(copied) != packaged


@pytest.mark.parametrize(
    "template", ["", "no messages", "[user]\n{{ nobody }}", "[assistant]\nyes"]
)
def test_unusable_template_names_its_file(tmp_path: Path, template: str) -> None:
    (tmp_path / "caption.jinja2").write_text(template, encoding="utf-8")
    with pytest.raises(UserError, match=r"caption\.jinja2"):
        load_prompts(SynthesisSettings(templates=tmp_path))


@pytest.mark.parametrize("content", ["", "- a list", "style: [1]", "{: bad", "style: ' '"])
def test_unusable_taxonomy_names_its_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"mine\.yaml"):
        load_prompts(SynthesisSettings(styles=path))


def test_folder_of_templates_without_any_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has none of caption\.jinja2"):
        load_prompts(SynthesisSettings(templates=tmp_path))
