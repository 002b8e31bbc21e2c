import json
from pathlib import Path
from typing import Any

from pipeline.engine.schemas import ANSWERS, RECORDS
from pipeline.engine.stage import Work
from pipeline.engine.tables import write_table
from pipeline.synthesis.judge import JudgeWorker, judge
from pipeline.synthesis.prompts import load_prompts
from pipeline.synthesis.settings import SynthesisSettings
from tests.pipeline.synthesis.slow_ingest import record

SETTINGS = SynthesisSettings()
PROMPTS = load_prompts(SETTINGS)
TEXTS = {
    "caption": "A picture of an apple.",
    "style": "A pencil sketch of an apple.",
    "negative": "pear, plum",
}

Row = dict[str, Any]


def answer(attempt: int = 1, **changes: Any) -> Row:
    return {
        "record_id": "r",
        "attempt": attempt,
        "kinds": list(TEXTS),
        "style": "pencil sketch",
        "text": json.dumps(TEXTS),
        "error": None,
        "model": "tiny@0",
        "prompt": PROMPTS.fingerprint,
        "seed": attempt,
        "num_prompt_tokens": 300,
        "num_output_tokens": 30,
    } | changes


def judged(*answers: Row, settings: SynthesisSettings = SETTINGS):
    return judge(settings, PROMPTS, ["red apple"], answers)


def test_good_answer_leaves_nothing_open() -> None:
    found = judged(answer())
    assert {kind: text for kind, (text, _) in found.accepted.items()} == TEXTS
    assert (found.open, list(found.failures)) == ({}, [])


def test_faulty_kind_stays_open_until_an_answer_puts_it_right() -> None:
    bad = answer(text=json.dumps(TEXTS | {"caption": "red apple"}))
    found = judged(bad)
    assert list(found.open) == ["caption"]
    assert found.open["caption"].text == "red apple"
    again = answer(2, kinds=["caption"], text=json.dumps({"caption": "An apple in red."}))
    found = judged(bad, again)
    assert found.open == {}
    assert found.accepted["caption"] == ("An apple in red.", again)
    assert [(each.kind, each.answer["attempt"]) for each in found.failures] == [("caption", 1)]


def test_kind_that_has_been_taken_is_not_replaced() -> None:
    again = answer(2, text=json.dumps(TEXTS | {"caption": "Another apple."}))
    assert judged(answer(), again).accepted["caption"][0] == TEXTS["caption"]


def test_refused_request_is_the_end() -> None:
    found = judged(answer(text=None, error="ValueError: too long", num_output_tokens=None))
    assert found.open == {}
    assert [each.why.reason for each in found.failures] == ["synthesis-engine-error"] * 3


def test_answer_that_used_up_its_tokens_was_cut_off() -> None:
    found = judged(answer(text='{"caption":"A', num_output_tokens=SETTINGS.max_tokens))
    assert {each.why.reason for each in found.failures} == {"synthesis-cut-off"}
    assert set(found.open) == set(TEXTS)


def test_new_negative_may_not_name_what_the_caption_of_an_earlier_attempt_shows() -> None:
    first = answer(text=json.dumps(TEXTS | {"caption": "A green apple.", "negative": ""}))
    again = answer(2, kinds=["negative"], text=json.dumps({"negative": "green apple"}))
    found = judged(first, again, settings=SynthesisSettings(critics=None))
    assert found.open["negative"].why.reason == "synthesis-repeats-record"


def test_variants_and_rejects_of_a_part(tmp_path: Path) -> None:
    captions = {"a": "red apple", "b": "two dogs", "c": "not asked"}
    write_table(tmp_path / "records", [record(*each) for each in captions.items()], RECORDS)
    rows = [
        answer(record_id="a", text=json.dumps(TEXTS | {"negative": ""})),
        answer(2, record_id="a", kinds=["negative"], text='{"negative": "pear"}'),
        answer(record_id="b", text="no JSON"),
    ]
    write_table(tmp_path / "answers", rows, ANSWERS)
    work = Work(part="p", inputs={name: tmp_path / name for name in ("records", "answers")})
    output = JudgeWorker(SETTINGS, {})(work)
    variants = [(row["record_id"], row["kind"], row["attempt"]) for row in output.rows]
    assert variants == [("a", "caption", 1), ("a", "style", 1), ("a", "negative", 2)]
    assert output.rows[1]["style"] == "pencil sketch"
    assert output.rows[0]["style"] is None
    assert (output.rows[2]["model"], output.rows[2]["seed"]) == ("tiny@0", 2)
    reasons = [(row["record_id"], row["reason"]) for row in output.rejects]
    assert reasons == [("a", "synthesis-empty")] + [("b", "synthesis-malformed-json")] * 3
    assert len({row["variant_id"] for row in output.rejects}) == 4


def test_what_a_critic_finds_keeps_a_text_out_with_its_words() -> None:
    found = judged(answer(text=json.dumps(TEXTS | {"caption": "Three blue cars."})))
    failure = found.open["caption"]
    assert failure.why.reason == "synthesis-ungrounded"
    assert failure.score is not None
    assert "blue" in failure.why.detail
    without = judged(
        answer(text=json.dumps(TEXTS | {"caption": "Three blue cars."})),
        settings=SynthesisSettings(critics=None),
    )
    assert without.open == {}
