from collections import Counter

import pytest

from pipeline.selection.settings import SelectSettings
from tests.pipeline.selection.rows import decide, fit, picture, record, score, select, write_part


def corpus(num_records=300, num_sources=3):
    """Records of several sources; the scores of each source are higher than those of the last."""
    records = [
        record(f"r{number:03}", source=f"source {number % num_sources}")
        for number in range(num_records)
    ]
    scores = [
        score(f"r{number:03}", clip_score=number % num_sources + number / num_records)
        for number in range(num_records)
    ]
    return records, scores


def kept_by_source(records, output):
    source = {each["record_id"]: each["source"] for each in records}
    return Counter(source[row["record_id"]] for row in output.rows)


def test_a_quantile_within_a_source_leaves_out_its_share_of_each(tmp_path):
    records, scores = corpus()
    rules = {"clip_score": {"quantile": 0.2, "within": "source"}}
    output = select(tmp_path, records, scores, rules=rules)
    assert set(kept_by_source(records, output).values()) == {80}
    detail = output.rejects[0]["detail"]
    assert detail == "the cut of the lowest 20 % of the source source 0"


def test_a_top_share_keeps_the_best_of_what_the_rules_leave(tmp_path):
    records, scores = corpus(num_sources=1)
    output = select(
        tmp_path, records, scores,
        rules={"clip_score": {"max": 0.5}}, top={"score": "clip_score", "share": 0.1},
    )  # fmt: skip
    kept = {row["record_id"] for row in output.rows}
    assert kept == {f"r{number:03}" for number in range(136, 151)}
    reasons = Counter(row["reason"] for row in output.rejects)
    assert reasons == {"clip-score-above-threshold": 149, "clip-score-below-top": 136}
    (below,) = {
        (row["detail"], row["threshold"]) for row in output.rejects if "top" in row["reason"]
    }
    assert below == ("the cut of the best 10 %", pytest.approx(136 / 300))


@pytest.mark.parametrize("by", ["clip_score", "caption_quality", "chance"])
@pytest.mark.parametrize("most", [1, 17, 99])
def test_a_quota_is_kept_to_the_record_also_where_scores_are_equal(tmp_path, by, most):
    records, scores = corpus()
    output = select(tmp_path, records, scores, top={"score": by, "most": most, "within": "source"})
    assert set(kept_by_source(records, output).values()) == {most}


def test_a_quota_counts_records_by_their_best_caption_and_no_duplicates(tmp_path):
    records, scores = corpus(num_records=60, num_sources=1)
    scores += [score(f"r{number:03}", f"v{number}", "caption", clip_score=9) for number in range(9)]
    scores += [score("r005", "n", "negative"), score("r005", "t", "text")]
    duplicates = [{"record_id": "r006", "duplicate_of": "r007"}]
    output = select(
        tmp_path, records, scores, duplicates=duplicates, top={"score": "clip_score", "most": 8},
    )  # fmt: skip
    assert {row["record_id"] for row in output.rows} == {f"r00{n}" for n in range(9) if n != 6}
    # The captions that are worse go, and what is no caption stays with its record.
    assert Counter(row["kind"] for row in output.rows) == {"caption": 8, "negative": 1, "text": 1}


def test_a_quota_of_styles_counts_the_texts_in_each_style(tmp_path):
    records = [record(f"r{number}") for number in range(30)]
    scores = [score(each["record_id"]) for each in records]
    scores += [score(f"r{number}", f"v{number}", "style") for number in range(30)]
    styles = {f"v{number}": ("ink", "clay", "neon")[number % 3] for number in range(30)}
    output = select(
        tmp_path, records, scores, styles=styles,
        top={"score": "chance", "most": 4, "within": "style"},
    )  # fmt: skip
    kept = Counter(styles[row["variant_id"]] for row in output.rows if row["kind"] == "style")
    assert kept == {"ink": 4, "clay": 4, "neon": 4}
    assert len({row["record_id"] for row in output.rows}) == 30


def test_a_group_that_does_not_fill_its_quota_has_no_limit(tmp_path):
    records, scores = corpus()
    settings = SelectSettings(top={"score": "clip_score", "most": 100, "within": "source"})
    write_part(tmp_path, "a", records, scores)
    fit(tmp_path, settings)
    files = write_part(tmp_path, "b", [record("new", source="source 1")],
                       [score("new", clip_score=-1.0)])  # fmt: skip
    assert [row["record_id"] for row in decide(tmp_path, settings, files).rows] == ["new"]


def test_new_data_moves_no_cut_and_a_new_source_has_that_of_the_corpus(tmp_path):
    records, scores = corpus()
    settings = SelectSettings(rules={"clip_score": {"quantile": 0.5, "within": "source"}})
    first = write_part(tmp_path, "a", records, scores)
    fit(tmp_path, settings)
    before = decide(tmp_path, settings, first)
    more = [score("low", clip_score=1.2), score("high", clip_score=2.0)]
    others = [record(each["record_id"], source="source 9") for each in more]
    files = write_part(tmp_path, "b", others, more)
    assert [row["record_id"] for row in decide(tmp_path, settings, files).rows] == ["high"]
    assert decide(tmp_path, settings, first) == before
    fit(tmp_path, settings)
    assert {row["record_id"] for row in decide(tmp_path, settings, files).rows} == {"high"}


def test_one_of_several_sets_of_rules_is_enough(tmp_path):
    records = [record(each) for each in "abcd"]
    scores = [
        score(each, clip_score=value)
        for each, value in zip("abcd", (0.4, 0.2, 0.2, 0.1), strict=True)
    ]
    pictures = [
        picture(each, entropy=value) for each, value in zip("abcd", (1, 6, 1, 6), strict=True)
    ]
    either = [{"clip_score": {"min": 0.3}}, {"clip_score": {"min": 0.15}, "entropy": {"min": 5}}]
    output = select(tmp_path, records, scores, pictures=pictures, any=either)
    assert [row["record_id"] for row in output.rows] == ["a", "b"]
    first, second = output.rejects
    assert first["reason"] == second["reason"] == "no-alternative-met"
    assert first["detail"] == "clip_score 0.2 is below 0.3; entropy 1 is below 5"
    assert second["detail"] == "clip_score 0.1 is below 0.3; clip_score 0.1 is below 0.15"
    assert (first["score"], first["threshold"]) == (pytest.approx(0.2), pytest.approx(0.3))


def test_a_score_becomes_a_weight(tmp_path):
    scores = [
        score("a", clip_score=0.1),
        score("a", "v1", "caption", clip_score=0.25),
        score("a", "v2", "caption", clip_score=0.4),
        score("a", "v3", "negative", clip_score=0.1),
        score("b", clip_score=None),
    ]
    output = select(
        tmp_path, [record("a"), record("b", image_id=None)], scores, keep_original=0.2,
        weights={"clip_score": {"low": 0.2, "high": 0.3, "least": 0.1}},
    )  # fmt: skip
    weights = [row["weight"] for row in output.rows]
    assert weights == pytest.approx([0.2 * 0.1, 0.4 * 0.55, 0.4, None, 1.0])


def test_a_low_clip_score_keeps_a_negative(tmp_path):
    scores = [score("a", clip_score=0.5), score("a", "n", "negative", clip_score=0.1)]
    output = select(tmp_path, [record("a")], scores, rules={"clip_score": {"min": 0.3}})
    assert [row["kind"] for row in output.rows] == ["original", "negative"]


def test_a_score_as_precise_as_it_is_stored_reaches_its_limit(tmp_path):
    scores = [score("a", clip_score=0.7), score("b", clip_score=0.3)]
    rules = {"clip_score": {"min": 0.3, "max": 0.7}}
    output = select(tmp_path, [record("a"), record("b")], scores, rules=rules)
    assert len(output.rows) == 2
