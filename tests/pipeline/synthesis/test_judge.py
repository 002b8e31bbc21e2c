import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine.schemas import ANSWERS, RECORDS, VARIANTS
from pipeline.engine.stage import Work
from pipeline.engine.tables import write_table
from pipeline.synthesis.critics.settings import CriticSettings
from pipeline.synthesis.judge import JudgeWorker, judge
from pipeline.synthesis.parsing import Rejected
from pipeline.synthesis.prompts import load_prompts
from pipeline.synthesis.settings import SynthesisSettings
from tests.pipeline.synthesis.slow_ingest import record

SETTINGS = SynthesisSettings()
PROMPTS = load_prompts(SETTINGS)
TEXTS = {
    "caption": {
        "tags": "apple, red",
        "sentence": "A picture of an apple.",
        "dense": "The picture shows an apple. It is a red apple.",
    },
    "style": {"style": "A pencil sketch of an apple."},
    "negative": {"absent": "pear, plum", "contrast": "A picture of a green apple."},
    "interleave": {"bridge": "Beside the red apple you see two dogs."},
}
CAPTIONS = {"r": ("red apple",), "n": ("two dogs",)}

Row = dict[str, Any]


def answer(kind: str = "caption", attempt: int = 1, **changes: Any) -> Row:
    texts = TEXTS[kind] | changes.pop("texts", {})
    return {
        "record_id": "r",
        "kind": kind,
        "role": "write",
        "attempt": attempt,
        "forms": list(texts),
        "style": "pencil sketch",
        "next_id": "n" if kind == "interleave" else None,
        "text": json.dumps(texts),
        "error": None,
        "finish_reason": "stop",
        "request": f"request {attempt}",
        "model": "tiny@0",
        "prompt": PROMPTS.fingerprint_of(kind),
        "temperature": 0.3,
        "top_p": 1.0,
        "max_tokens": 160,
        "seed": attempt,
        "num_prompt_tokens": 300,
        "num_output_tokens": 30,
    } | changes


def judged(*answers: Row, settings: SynthesisSettings = SETTINGS):
    return judge(settings, PROMPTS, CAPTIONS, answers)


@pytest.mark.parametrize("kind", TEXTS)
def test_good_answer_leaves_nothing_open(kind: str) -> None:
    found = judged(answer(kind))
    assert {form: text for form, (text, _) in found.accepted.items()} == TEXTS[kind]
    assert (found.open, found.failures) == ({}, [])


def test_faulty_form_stays_open_until_an_answer_puts_it_right() -> None:
    bad = answer(texts={"sentence": "red apple"})
    found = judged(bad)
    assert list(found.open) == ["sentence"]
    assert found.open["sentence"].text == "red apple"
    again = answer(attempt=2, forms=["sentence"], text=json.dumps({"sentence": "An apple in red."}))
    found = judged(bad, again)
    assert found.open == {}
    assert found.accepted["sentence"] == ("An apple in red.", again)
    assert [(each.form, each.answer["attempt"]) for each in found.failures] == [("sentence", 1)]


def test_form_that_has_been_taken_is_not_replaced() -> None:
    again = answer(attempt=2, texts={"sentence": "Another apple."})
    assert judged(answer(), again).accepted["sentence"][0] == TEXTS["caption"]["sentence"]


def test_refused_request_is_the_end_of_its_kind_alone() -> None:
    refused = answer(text=None, error="ValueError: too long", num_output_tokens=None)
    found = judged(refused, answer("negative"))
    assert found.open == {}
    assert set(found.accepted) == {"absent", "contrast"}
    assert [each.why.reason for each in found.failures] == ["synthesis-engine-error"] * 3


def test_answer_that_used_up_its_tokens_was_cut_off() -> None:
    found = judged(answer(text='{"tags":"A', finish_reason="length"))
    assert {each.why.reason for each in found.failures} == {"synthesis-cut-off"}
    assert set(found.open) == set(TEXTS["caption"])


def test_absent_thing_may_not_be_what_the_caption_shows() -> None:
    caption = answer(texts={"sentence": "A green apple."})
    negative = answer("negative", texts={"absent": "green apple"})
    found = judged(caption, negative, settings=SynthesisSettings(critics=None))
    assert found.open["absent"].why.reason == "synthesis-repeats-record"


def test_hard_negative_has_to_be_wrong_and_a_caption_right() -> None:
    found = judged(answer("negative", texts={"contrast": "A picture of a red apple."}))
    assert found.open["contrast"].why.reason == "synthesis-not-contrary"
    found = judged(answer(texts={"sentence": "A picture of a green apple."}))
    assert found.open["sentence"].why.reason == "synthesis-ungrounded"


def test_text_that_leads_on_may_say_what_either_record_states() -> None:
    assert judged(answer("interleave")).open == {}
    wrong = answer("interleave", texts={"bridge": "Beside the apple you see seven cats."})
    assert judged(wrong).open["bridge"].why.reason == "synthesis-ungrounded"


def test_variants_and_rejects_of_a_part(tmp_path: Path) -> None:
    captions = {"a": "red apple", "b": "two dogs", "c": "not asked"}
    write_table(tmp_path / "records", [record(*each) for each in captions.items()], RECORDS)
    rows = [
        answer("style", record_id="a"),
        answer("negative", record_id="a", texts={"absent": ""}),
        answer("negative", 2, record_id="a", forms=["absent"], text='{"absent": "pear"}'),
        answer(record_id="b", text="no JSON"),
        answer("interleave", record_id="a", next_id="b"),
    ]
    write_table(tmp_path / "answers", rows, ANSWERS)
    work = Work(part="p", inputs={name: tmp_path / name for name in ("records", "answers")})
    output = JudgeWorker(SETTINGS, {})(work)
    write_table(tmp_path / "variants", output.rows, VARIANTS)
    variants = [(row["record_id"], row["form"], row["attempt"]) for row in output.rows]
    assert variants == [
        ("a", "style", 1), ("a", "absent", 2), ("a", "contrast", 1), ("a", "bridge", 1),
    ]  # fmt: skip
    assert [row["style"] for row in output.rows] == ["pencil sketch", None, None, None]
    assert [row["next_id"] for row in output.rows] == [None, None, None, "b"]
    assert (output.rows[1]["model"], output.rows[1]["seed"]) == ("tiny@0", 2)
    reasons = [(row["record_id"], row["form"], row["reason"]) for row in output.rejects]
    assert reasons == [("a", "absent", "synthesis-empty")] + [
        ("b", form, "synthesis-malformed-json") for form in TEXTS["caption"]
    ]
    assert len({row["variant_id"] for row in output.rejects}) == 4


def test_what_a_critic_finds_keeps_a_text_out_with_its_words() -> None:
    wrong = answer(texts={"sentence": "Three blue cars."})
    failure = judged(wrong).open["sentence"]
    assert failure.why.reason == "synthesis-ungrounded"
    assert failure.score is not None
    assert "blue" in failure.why.detail
    assert judged(wrong, settings=SynthesisSettings(critics=None)).open == {}


def judgement(attempt: int = 1, **marks: int) -> Row:
    said = {
        form: {"faithful": mark, "natural": 5, "useful": 5, "why": "it is blue"}
        for form, mark in marks.items()
    }
    return answer(attempt=attempt, role="judge", forms=list(marks), text=json.dumps(said))


def test_llm_as_a_judge_decides_on_what_the_others_took() -> None:
    settings = SynthesisSettings(critics=CriticSettings(judge=True))
    found = judged(answer(), settings=settings)
    assert (found.accepted, set(found.pending)) == ({}, set(TEXTS["caption"]))
    found = judged(answer(), judgement(tags=5, sentence=1, dense=4), settings=settings)
    assert set(found.accepted) == {"tags", "dense"}
    assert found.open["sentence"].why == Rejected("synthesis-judged-poor", "it is blue")
    assert found.open["sentence"].score == 0


@pytest.mark.parametrize("said", [{"text": "no JSON"}, {"text": None, "error": "refused"}])
def test_text_stays_where_the_judge_says_nothing(said: Row) -> None:
    settings = SynthesisSettings(critics=CriticSettings(judge=True))
    silent = judgement(tags=1, sentence=1, dense=1) | said
    assert set(judged(answer(), silent, settings=settings).accepted) == set(TEXTS["caption"])


def test_judgement_counts_for_its_own_attempt_alone() -> None:
    settings = SynthesisSettings(critics=CriticSettings(judge=True))
    again = answer(attempt=2, forms=["tags"], text=json.dumps({"tags": "apple, red"}))
    rows = [answer(texts={"tags": "red apple"}), judgement(sentence=5, dense=5), again]
    found = judged(*rows, settings=settings)
    assert set(found.accepted) == {"sentence", "dense"}
    assert set(found.pending) == {"tags"}
    assert set(judged(*rows, judgement(2, tags=5), settings=settings).accepted) == set(
        TEXTS["caption"]
    )


def test_caption_that_fits_the_picture_much_less_than_the_own_one_fails() -> None:
    settings = SynthesisSettings(critics=CriticSettings(max_clip_loss=0.1))
    scores = {"original": 0.4, "tags": 0.31, "sentence": 0.5, "dense": 0.2}
    said = answer(role="clip", text=json.dumps(scores))
    found = judged(answer(), answer("style"), said, settings=settings)
    assert set(found.accepted) == {"style", "tags", "sentence"}
    assert found.open["dense"].why.reason == "synthesis-clip-loss"


def test_answer_on_disk_with_nothing_in_it_is_empty_and_stops_no_part() -> None:
    nothing = {"text": None, "finish_reason": None, "num_prompt_tokens": None}
    found = judged(answer(**nothing, num_output_tokens=None))
    assert {each.why.reason for each in found.failures} == {"synthesis-empty"}
