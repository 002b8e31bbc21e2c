"""Captions are data, never orders: what `hostile.yaml` does to prompts, parser and critics."""

import json
import re
import sys
import unicodedata
from collections import Counter
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers
from transformers import AutoTokenizer

from pipeline.engine.corpus import Task
from pipeline.engine.schemas import ANSWERS, RECORDS, REJECTS, VARIANTS
from pipeline.engine.stage import Work
from pipeline.engine.tables import write_table
from pipeline.synthesis.critics.candidate import Candidate
from pipeline.synthesis.critics.judge import judge_messages
from pipeline.synthesis.forms import KINDS, forms_of
from pipeline.synthesis.judge import JudgeWorker, judge
from pipeline.synthesis.prompts import (
    JUDGE,
    MAX_CAPTION,
    Fault,
    build_messages,
    clean,
    load_prompts,
)
from pipeline.synthesis.requests import open_requests
from pipeline.synthesis.settings import SynthesisSettings
from pipeline.synthesis.weights import SMOLLM2, resolve_model
from tests.pipeline.synthesis.hostile import cases, family_tokens
from tests.pipeline.synthesis.slow_ingest import record

SETTINGS = SynthesisSettings()
PROMPTS = load_prompts(SETTINGS)
STYLE = "pencil sketch"
HARMLESS = "red apple"

every_caption = pytest.mark.parametrize(
    "caption", [case.caption for case in cases()], ids=lambda caption: ascii(caption[:30])
)


def prompts_of(caption):
    """All that the LLM is asked about a caption, when the record and its answers only say that."""
    for kind in KINDS:
        why = f"it says {caption}"
        wrong = [Fault(form=form, text=caption, why=why) for form in forms_of(kind)]
        for faults in ([], wrong):
            yield build_messages(
                PROMPTS, kind, caption, style=STYLE, next_caption=caption, faults=faults
            )
        candidates = [
            Candidate(form=form, text=caption, captions=(caption, caption), style=caption)
            for form in forms_of(kind)
        ]
        yield judge_messages(PROMPTS.templates[JUDGE], candidates)


def data_of(messages):
    """The JSON of a chat's last message."""
    lines = messages[-1]["content"].splitlines()
    (found,) = [line for line in lines if line.startswith("{")]
    return json.loads(found)


def shape_of(value):
    """The keys of a JSON value and of those in it."""
    if isinstance(value, dict):
        return {key: shape_of(each) for key, each in value.items()}
    return [shape_of(each) for each in value] if isinstance(value, list) else None


def texts_of(value):
    """The strings in a JSON value."""
    if isinstance(value, str):
        return {value}
    parts = value.values() if isinstance(value, dict) else value
    return {text for each in parts for text in texts_of(each)}


@cache
def tokenizer(normalizer):
    """The embedded model's, which also knows the special tokens of other families."""
    found = AutoTokenizer.from_pretrained(resolve_model(SMOLLM2))
    found.add_tokens(
        [
            AddedToken(token, special=True, normalized=normalizer is not None)
            for token in family_tokens()
        ]
    )
    if normalizer is not None:
        found.backend_tokenizer.normalizer = normalizer()
    return found


def special_tokens(messages, normalizer):
    """How often each special token stands in the chat that the model reads."""
    found = tokenizer(normalizer)
    text = found.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = found(text, add_special_tokens=False)["input_ids"]
    added = found.added_tokens_decoder  # made whenever it is asked for
    return Counter(each for each in ids if each in added)


@cache
def expected_tokens(normalizer):
    """The special tokens of each prompt about a harmless record."""
    return [special_tokens(messages, normalizer) for messages in prompts_of(HARMLESS)]


def test_set_is_large_and_each_caption_stands_once():
    captions = [case.caption for case in cases()]
    assert len(set(captions)) == len(captions) >= 60


@every_caption
def test_caption_changes_neither_roles_nor_examples_nor_keys(caption):
    for messages, expected in zip(prompts_of(caption), prompts_of(HARMLESS), strict=True):
        assert [each["role"] for each in messages] == [each["role"] for each in expected]
        assert messages[:-1] == expected[:-1]
        found, plain = messages[-1]["content"], expected[-1]["content"]
        assert shape_of(data_of(messages)) == shape_of(data_of(expected))
        assert len(found.splitlines()) == len(plain.splitlines())
        assert clean(caption) in texts_of(data_of(messages))
        assert len(found) <= len(plain) + 8 * 2 * MAX_CAPTION  # eight texts, each letter escaped


@every_caption
def test_caption_makes_no_special_token(caption):
    for normalizer in (None, normalizers.NFKC):
        found = [special_tokens(messages, normalizer) for messages in prompts_of(caption)]
        assert found == expected_tokens(normalizer)


@given(st.lists(st.sampled_from([*family_tokens(), *"<>|[]/s\u200b\u200d\ufe0f\0 "]), max_size=12))
def test_tokens_put_together_in_any_way_make_no_token(pieces):
    cleaned = clean("".join(pieces))
    assert not [token for token in family_tokens() if token in cleaned]
    assert clean(cleaned) == cleaned


@given(st.sampled_from(family_tokens()), st.integers(0, 40), st.sampled_from(family_tokens()))
def test_token_inside_a_token_makes_no_token(outer, place, inner):
    cleaned = clean(outer[:place] + inner + outer[place:])
    assert not [token for token in family_tokens() if token in cleaned]


def test_what_cannot_be_seen_is_taken_out_and_what_can_be_seen_stays():
    fillers = "\u115f\u1160\u3164\uffa0\ufffc\ufffd"  # letters and signs that show nothing
    shown = ("ARABIC ", "SYRIAC ", "KAITHI ", "EGYPTIAN ")  # formats with a shape of their own
    for letter in map(chr, range(sys.maxunicode + 1)):
        category = unicodedata.category(letter)
        is_format = category in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
        if letter in fillers or (is_format and not unicodedata.name(letter, "").startswith(shown)):
            assert clean(f"a{letter}b") in {"ab", "a b"}
        elif category[0] in "LNS":
            assert clean(f"({letter})") == f"({letter})"


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cشود", "क्\u200dष", "👩\u200d🚒 at work", "3 < 4 and 5 > 2", "I <3 cats",
        "[1] apple", "[sic]", "a [red] apple", "café naïve", "½ apple ™",
    ],
)  # fmt: skip
def test_harmless_text_stays_as_it_is(text):
    assert clean(text) == text


def test_record_is_asked_about_as_if_it_were_alone(tmp_path):
    """But in an interleaved document, which is about two records."""
    captions = {f"r{index}": (case.caption,) for index, case in enumerate(cases())}
    captions["harmless"] = (HARMLESS,)
    shares = {kind: 1.0 for kind in KINDS if kind != "interleave"}
    settings = SynthesisSettings(shares=shares)
    task = Task(work=Work(part="p"), output=tmp_path / "answers", rejects=tmp_path / "rejects")

    def requests(some):
        return list(open_requests(task, some, {}, settings=settings, prompts=PROMPTS))

    alone = [each for name, texts in captions.items() for each in requests({name: texts})]
    assert len(alone) == len(captions) * len(shares)
    assert requests(captions) == alone


def answer(kind, text, record_id="r", **changes):
    return {
        "record_id": record_id,
        "kind": kind,
        "role": "write",
        "attempt": 1,
        "forms": list(forms_of(kind)),
        "style": STYLE,
        "next_id": None,
        "text": text,
        "error": None,
        "finish_reason": "stop",
        "request": "",
        "model": "tiny@0",
        "prompt": PROMPTS.fingerprint_of(kind),
        "temperature": 0.3,
        "top_p": 1.0,
        "max_tokens": SETTINGS.max_tokens,
        "seed": 1,
        "num_prompt_tokens": 300,
        "num_output_tokens": 30,
    } | changes


def as_json(text, **more):
    """An answer that says a text in every form of every kind."""
    return json.dumps({form: text for kind in KINDS for form in forms_of(kind)} | more)


SHAPES = [
    "", " ", "null", "true", "NaN", "-Infinity", "12", '"HACKED"', "[]", "{}", "[[[", "}", "\0",
    "[" * 10_000, '{"tags":' * 10_000, "[" * 10_000 + "]" * 10_000, '{"tags":' + "9" * 10_000,
    '{"sentence":NaN,"style":1e999,"negative":-0}', '{"sentence":null,"style":true,"negative":[]}',
    '{"sentence":{"sentence":"a"},"style":["A pencil sketch of"],"negative":{"a":1}}',
    '{"sentence":"A fine apple.","sentence":"HACKED","sentence":5}',
    as_json("HACKED", system="obey", tags2="x"), as_json("\ud83d half a pair"),
    as_json("\ud800"), as_json("\0\x1b[31m"), as_json("a" * 100_000), as_json("<|im_end|>" * 9),
    as_json("," * 300), as_json("HACKED")[:-1], as_json("HACKED") * 2, "Sure! " + as_json("apple"),
    "```json\n" + as_json("apple") + "\n```", "<think>hm</think>" + as_json("apple"),
    '{"__proto__":{},"sentence":"{{ 7*7 }}"}', "\ufeff" + as_json("apple"),
    *PROMPTS.templates.values(),
]  # fmt: skip
"""Answers that no schema has held back."""


def decided(caption, text, **changes):
    """What is accepted of an answer; every form is, or is refused with a reason."""
    accepted = {}
    for kind in KINDS:
        found = judge(SETTINGS, PROMPTS, {"r": (caption,)}, [answer(kind, text, **changes)])
        refused = {failure.form: failure.why for failure in found.failures}
        assert sorted([*found.accepted, *refused]) == sorted(forms_of(kind))
        assert all(why.reason.startswith("synthesis-") for why in refused.values())
        accepted |= {form: said for form, (said, _) in found.accepted.items()}
    assert all(len(said) <= MAX_CAPTION for said in accepted.values())
    return accepted


@pytest.mark.parametrize("text", SHAPES, ids=lambda text: ascii(text[:30]))
def test_answer_of_any_shape_is_accepted_or_refused_with_a_reason(text):
    for finish_reason in ("stop", "length"):
        decided(HARMLESS, text, finish_reason=finish_reason)


FORM_NAMES = [form for kind in KINDS for form in forms_of(kind)]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda some: st.lists(some) | st.dictionaries(st.sampled_from(FORM_NAMES) | st.text(), some),
)


@given(st.text() | JSON.map(json.dumps), st.text(min_size=1))
def test_any_answer_about_any_caption_is_accepted_or_refused_with_a_reason(text, caption):
    decided(caption, text)


@every_caption
def test_answer_that_says_the_caption_or_the_prompt_is_accepted_or_refused(caption):
    for text in (caption, as_json(caption), *(each[-1]["content"] for each in prompts_of(caption))):
        decided(caption, text)


WORDS = [case for case in cases() if re.fullmatch("[A-Za-z]+", case.canary)]


@pytest.mark.parametrize("case", WORDS, ids=lambda case: case.canary)
def test_answer_of_the_one_word_that_was_ordered_is_no_text_about_the_picture(case):
    accepted = decided(case.caption, as_json(case.canary))
    assert set(accepted) <= set(forms_of("negative"))  # it may name whatever is not there


def test_texts_of_hostile_answers_can_be_committed(tmp_path):
    """Arrow takes no half of a surrogate pair: one would have stopped the part."""
    captions = [case.caption.encode("utf-8", "ignore").decode() or "-" for case in cases()]
    rows = [record(f"r{index}", caption) for index, caption in enumerate(captions)]
    write_table(tmp_path / "records", rows, RECORDS)
    texts = [*captions, *(as_json(case.caption) for case in cases()), *SHAPES]
    answers = [
        answer(kind, text, f"r{index % len(rows)}", attempt=1 + index // len(rows))
        for index, text in enumerate(texts)
        for kind in KINDS
    ]
    write_table(tmp_path / "answers", answers, ANSWERS)
    work = Work(part="p", inputs={name: tmp_path / name for name in ("records", "answers")})
    output = JudgeWorker(SETTINGS, {})(work)
    assert {row["record_id"] for row in (*output.rows, *output.rejects)} == {
        row["record_id"] for row in rows
    }
    write_table(tmp_path / "variants", output.rows, VARIANTS)
    write_table(tmp_path / "rejects", output.rejects, REJECTS)
