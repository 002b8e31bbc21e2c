import pytest
from pydantic import ValidationError

from pipeline.calibration import CALIBRATION_FILE
from pipeline.engine.storage import read_json
from pipeline.selection.cuts import CUTS_FILE
from pipeline.selection.settings import Rule, SelectSettings
from tests.pipeline.selection.rows import picture, record, score, select


def test_a_record_below_a_threshold_is_rejected_with_score_and_threshold(tmp_path):
    scores = [score("a", clip_score=0.1), score("b", clip_score=0.5)]
    output = select(
        tmp_path, [record("a"), record("b")], scores, rules={"clip_score": Rule(min=0.25)}
    )
    assert [row["record_id"] for row in output.rows] == ["b"]
    (row,) = output.rejects
    assert row["reason"] == "clip-score-below-threshold"
    assert (row["record_id"], row["variant_id"]) == ("a", None)
    assert (row["score"], row["threshold"]) == (pytest.approx(0.1), 0.25)


def test_a_good_variant_saves_a_record_whose_own_caption_fails(tmp_path):
    scores = [
        score("a", clip_score=0.1),
        score("a", "v1", "caption", clip_score=0.9),
        score("a", "v2", "style", clip_score=None),
    ]
    output = select(tmp_path, [record("a")], scores, rules={"clip_score": Rule(min=0.25)})
    assert [row["variant_id"] for row in output.rows] == ["v1", "v2"]
    assert [row["variant_id"] for row in output.rejects] == ["original"]


def test_styles_and_negatives_alone_do_not_keep_a_record(tmp_path):
    scores = [score("a", clip_score=0.1), score("a", "v", "negative")]
    output = select(tmp_path, [record("a")], scores, rules={"clip_score": Rule(min=0.25)})
    assert not output.rows
    assert [row["variant_id"] for row in output.rejects] == [None]


def test_a_quantile_leaves_out_its_share(tmp_path):
    records = [record(f"r{index:03d}") for index in range(200)]
    scores = [score(f"r{index:03d}", clip_score=index / 200) for index in range(200)]
    output = select(tmp_path, records, scores, rules={"clip_score": Rule(quantile=0.1)})
    assert len(output.rejects) == 20
    assert output.rejects[0]["threshold"] == pytest.approx(0.0995, abs=1e-4)


def test_scores_that_do_not_apply_pass(tmp_path):
    rules = {"clip_score": Rule(min=0.9), "entropy": Rule(max=0.1)}
    output = select(tmp_path, [record("a", image_id=None)], [score("a")], rules=rules)
    assert [row["stream"] for row in output.rows] == ["text"]


def test_the_first_rule_that_fails_gives_the_reason(tmp_path):
    pictures = [picture("a", entropy=9.0, short_side=1.0)]
    rules = {"entropy": Rule(max=8.0), "short_side": Rule(min=2)}
    output = select(tmp_path, [record("a")], [score("a")], pictures=pictures, rules=rules)
    assert output.rejects[0]["reason"] == "entropy-above-threshold"


def test_a_duplicate_is_rejected_and_names_the_record_that_stays(tmp_path):
    records, scores = [record("a"), record("b")], [score("a"), score("b")]
    duplicates = [{"record_id": "b", "duplicate_of": "a"}]
    output = select(tmp_path, records, scores, duplicates=duplicates)
    assert [row["record_id"] for row in output.rows] == ["a"]
    assert output.rejects[0]["reason"] == "duplicate-image"
    assert "a" in output.rejects[0]["detail"]
    kept = select(tmp_path, records, scores, duplicates=duplicates, drop_duplicates=False)
    assert len(kept.rows) == 2


def refusal(record_id, variant_id=None, **columns):
    row = {"reason": "blocked-text", "detail": "it has 'x'"} | columns
    return {"record_id": record_id, "variant_id": variant_id} | row


def test_what_may_not_be_used_is_rejected_with_the_entry_whatever_its_scores(tmp_path):
    records = [record("a"), record("b"), record("c")]
    scores = [score("a"), score("b"), score("b", "original-de"), score("c")]
    refusals = [
        refusal("a", reason="blocked-domain", detail="it is from bad.org"),
        refusal("a", "original"),
        refusal("b", "original-de"),
    ]
    duplicates = [{"record_id": "a", "duplicate_of": "c"}]
    output = select(tmp_path, records, scores, refusals=refusals, duplicates=duplicates)
    assert [(row["record_id"], row["variant_id"]) for row in output.rows] == [
        ("b", "original"),
        ("c", "original"),
    ]
    told = [
        (row["record_id"], row["variant_id"], row["reason"], row["detail"])
        for row in output.rejects
    ]
    assert told == [
        ("a", None, "blocked-domain", "it is from bad.org"),
        ("b", "original-de", "blocked-text", "it has 'x'"),
    ]


def test_a_refused_record_takes_no_place_of_a_quota(tmp_path):
    records = [record(name) for name in "abcd"]
    scores = [score(name, clip_score=0.1 * place) for place, name in enumerate("abcd", 1)]
    top = {"score": "clip_score", "most": 2}
    output = select(tmp_path, records, scores, refusals=[refusal("d", reason="opted-out")], top=top)
    assert [row["record_id"] for row in output.rows] == ["b", "c"]


def test_a_sound_goes_into_the_audio_stream_with_its_captions(tmp_path):
    records = [record("a", image_id=None, sound_id="s"), record("b", image_id=None), record("c")]
    scores = [score(each) for each in ("a", "a", "b", "c")]
    scores[1]["variant_id"] = "original-more"
    output = select(tmp_path, records, scores, mixed_share=0)
    assert not output.rejects
    found = {(row["record_id"], row["variant_id"]): row["stream"] for row in output.rows}
    assert found == {
        ("a", "original"): "audio",
        ("a", "original-more"): "audio",
        ("b", "original"): "text",
        ("c", "original"): "image",
    }


def test_the_mixed_stream_gets_its_share(tmp_path):
    records = [record(f"r{index}") for index in range(900)]
    output = select(tmp_path, records, [score(f"r{index}") for index in range(900)])
    mixed = sum(row["stream"] == "mixed" for row in output.rows)
    assert 250 < mixed < 350


def test_the_pieces_of_a_document_go_into_the_mixed_stream_together(tmp_path):
    records = [
        record("a", document="d"),
        record("b", document="d", image_id=None),
        record("c", document="e", image_id=None),
        record("d", document="f"),
        record("e", document="f", image_id=None),
    ]
    scores = [score(each["record_id"]) for each in records]
    pictures = [picture("d", entropy=9.0)]
    rules = {"entropy": Rule(max=8)}
    output = select(tmp_path, records, scores, pictures=pictures, rules=rules, mixed_share=0)
    streams = {row["record_id"]: row["stream"] for row in output.rows}
    # The only picture of the document `f` is left out, so that its text is one like any other.
    assert streams == {"a": "mixed", "b": "mixed", "c": "text", "e": "text"}


def test_further_captions_are_kept_and_left_out_one_by_one(tmp_path):
    scores = [
        score("a", clip_score=0.1),
        score("a", "original-de", clip_score=0.9),
        score("a", "original-fr", clip_score=0.2),
    ]
    output = select(tmp_path, [record("a")], scores, rules={"clip_score": Rule(min=0.25)})
    assert [row["variant_id"] for row in output.rows] == ["original-de"]
    assert [row["variant_id"] for row in output.rejects] == ["original", "original-fr"]


def test_the_histograms_hold_every_pair(tmp_path):
    scores = [
        score(f"r{index}", clip_score=index / 9, clip_score_shuffled=index / 20)
        for index in range(10)
    ]
    select(tmp_path, [record(f"r{index}") for index in range(10)], scores)
    calibration = read_json(tmp_path / "cuts" / CALIBRATION_FILE)
    assert sum(calibration["counts"]["true"]) == sum(calibration["counts"]["shuffled"]) == 10
    assert read_json(tmp_path / "cuts" / CUTS_FILE) == {}


def test_a_rule_by_false_accepts_cuts_by_the_scores_of_shuffled_pairs(tmp_path):
    scores = [
        score(f"r{index:02}", clip_score=index / 20, clip_score_shuffled=index / 40)
        for index in range(40)
    ]
    output = select(
        tmp_path, [record(row["record_id"]) for row in scores], scores,
        rules={"clip_score": Rule(false_accept=0.25)},
    )  # fmt: skip
    assert {row["threshold"] for row in output.rejects} == {30 / 40}
    assert [row["record_id"] for row in output.rows] == [f"r{index}" for index in range(15, 40)]
    assert output.rejects[0]["detail"] == "the cut that 25 % of the shuffled pairs pass"


def test_only_the_clip_score_knows_false_accepts():
    with pytest.raises(ValidationError, match="clip_score"):
        SelectSettings(rules={"caption_quality": Rule(false_accept=0.05)})


@pytest.mark.parametrize(
    "rule",
    [{}, {"min": 1, "quantile": 0.1}, {"quantile": 1.5}, {"false_accept": 0.1, "quantile": 0.1}],
)
def test_a_rule_that_says_nothing_or_too_much_is_refused(rule):
    with pytest.raises(ValidationError):
        Rule(**rule)


def test_records_that_a_text_leads_between_go_into_the_mixed_stream_together(tmp_path):
    ids = [f"r{number}" for number in range(20)]
    scores = [score(record_id) for record_id in ids]
    scores += [score("r0", "b0", "interleave"), score("r1", "b1", "interleave")]
    output = select(
        tmp_path, [record(each) for each in ids], scores,
        nexts={"b0": "r1", "b1": "r2"}, mixed_share=0,
    )  # fmt: skip
    streams = {row["record_id"]: row["stream"] for row in output.rows}
    assert [each for each in ids if streams[each] == "mixed"] == ["r0", "r1", "r2"]
    assert {row["variant_id"] for row in output.rows} >= {"b0", "b1"}


@pytest.mark.parametrize("lost", ["low score", "duplicate", "other split"])
def test_text_that_leads_nowhere_is_rejected(tmp_path, lost):
    scores = [score("a", clip_score=0.9), score("a", "b0", "interleave")]
    scores += [score("b", clip_score=0.1 if lost == "low score" else 0.9)]
    duplicates = [{"record_id": "b", "duplicate_of": "c"}] if lost == "duplicate" else []
    records = [record("a"), record("b", split="validation" if lost == "other split" else "train")]
    output = select(
        tmp_path, records, scores, duplicates=duplicates, nexts={"b0": "b"},
        rules={"clip_score": Rule(min=0.25)},
    )  # fmt: skip
    rejects = {row["variant_id"]: row["reason"] for row in output.rejects}
    assert rejects["b0"] == "bridge-without-end"
    assert "b0" not in {row["variant_id"] for row in output.rows}


def test_bridged_records_count_towards_the_mixed_share(tmp_path):
    ids = [f"r{number}" for number in range(600)]
    scores = [score(record_id) for record_id in ids]
    scores += [score(each, f"b{each}", "interleave") for each in ids[:100:2]]
    nexts = {f"b{one}": other for one, other in zip(ids[:100:2], ids[1:100:2], strict=True)}
    output = select(tmp_path, [record(each) for each in ids], scores, nexts=nexts, mixed_share=0.5)
    mixed = {row["record_id"] for row in output.rows if row["stream"] == "mixed"}
    assert 260 < len(mixed) < 340


def test_text_about_a_subject_goes_into_the_text_stream(tmp_path):
    scores = [score("a"), score("a", "v", "text")]
    output = select(tmp_path, [record("a")], scores, mixed_share=0)
    assert [(row["kind"], row["stream"]) for row in output.rows] == [
        ("original", "image"), ("text", "text"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kinds", "weights"),
    [
        (["original"], [1.0]),
        (["original", "caption", "caption"], [0.2, 0.4, 0.4]),
        (["original", "caption", "style", "negative", "text"], [0.2, 0.8, None, None, None]),
    ],
)
def test_original_caption_keeps_its_share(tmp_path, kinds, weights):
    names = ["original", "v1", "v2", "v3", "v4"]
    scores = [score("a", name, kind) for name, kind in zip(names, kinds, strict=False)]
    output = select(tmp_path, [record("a")], scores, keep_original=0.2)
    assert [row["weight"] for row in output.rows] == pytest.approx(weights)


def test_captions_of_an_llm_have_all_the_weight_where_the_own_one_fails(tmp_path):
    scores = [score("a", clip_score=0.1), score("a", "v", "caption", clip_score=0.9)]
    output = select(tmp_path, [record("a")], scores, rules={"clip_score": Rule(min=0.25)})
    assert [row["weight"] for row in output.rows] == [1.0]
