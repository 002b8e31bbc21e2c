"""Each sentence about a corpus's limits follows from what was done to it."""

import pytest

from pipeline.publish.limits import known_limits
from tests.pipeline.publish.conftest import tiny_recipe

FOLDER = {"kind": "folder", "path": "."}


@pytest.fixture
def said(tmp_path):
    def say(changes=None, *, languages=None, has_llm_texts=True, has_sounds=False):
        recipe = tiny_recipe(tmp_path, **(changes or {})).model_dump(mode="json")
        return "\n".join(
            known_limits(
                recipe, languages=languages, has_llm_texts=has_llm_texts, has_sounds=has_sounds
            )
        )

    return say


def rules(**limits):
    return {"select": {"rules": limits}}


def test_what_was_not_looked_for_is_said_and_what_was_is_not_denied(said):
    nothing = "Nothing was checked for bias, personal data, unsafe content or overlap with"
    assert nothing in said()
    assert "were left out; opt-outs that are written elsewhere were not looked for" in said()
    kept = said({"ingest": {"opt_outs": "keep"}})
    assert "whose owner does not want them mined are in it" in kept
    assert "opt-outs that are written elsewhere" not in kept


def test_a_rule_on_personal_data_is_said_with_its_reach(said):
    text = said(rules(num_personal={"max": 0}))
    assert "e-mail addresses and telephone numbers in texts were looked for" in text
    assert "Nothing was checked for bias, unsafe content or overlap" in text


def test_evaluation_sets_are_named_and_others_are_not_claimed(said):
    against = {"duplicates": {"against": [{**FOLDER, "name": "exam"}]}}
    text = said(against)
    assert "Copies of pictures in exam were left out; overlap with other evaluation sets" in text
    assert "Nothing was checked for bias, personal data or unsafe content." in text
    off = said({**against, "select": {"drop_duplicates": False}})
    assert "exam" not in off
    assert "overlap with evaluation sets" in off
    assert "Duplicates were not left out." in off


def test_near_duplicates_are_claimed_only_where_they_were_looked_for(said):
    assert "Only exact duplicates were looked for" in said()
    near = said({"duplicates": {"perceptual": 0.1}})
    assert "Of near copies one stays" in near
    assert "Only exact" not in near


def test_whether_the_llm_saw_the_pictures_is_what_the_recipe_says(said):
    assert "The LLM never saw the pictures" in said()
    vision = {"synthesis": {"model": "replayed", "vision": True, "vision_max_side": 300}}
    assert "The LLM saw the pictures, with a longer side of at most 300 pixels" in said(vision)
    assert "never saw" not in said(vision)
    assert "LLM" not in said(has_llm_texts=False)
    assert "The LLM never heard the sounds." in said(has_sounds=True)


def test_languages_are_those_that_were_found(said):
    assert "language" not in said(languages=None)
    assert "The language of the texts was not determined." in said(languages={})
    found = {"en": 70, "de": 20, "fr": 5, "it": 3, "nl": 1, "sv": 1}
    assert "en 70%, de 20%, fr 5%, it 3%, nl 1% and 1 more." in said(languages=found)
