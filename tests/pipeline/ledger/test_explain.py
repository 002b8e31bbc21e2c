import json

import pytest

from jobs.run import fill, open_corpus
from jobs.upkeep import forget
from pipeline.engine.forgotten import Entry
from pipeline.engine.parts import record_id
from pipeline.errors import UserError
from pipeline.ledger.explain import explain


def test_a_record_in_the_shards_is_told_from_its_source_to_its_sample(made):
    _, corpus = open_corpus(made)
    ((record, image),) = corpus.query(
        "SELECT record_id, image_id FROM records JOIN variants USING (record_id)"
        " WHERE record_id IN (SELECT unnest(record_ids) FROM samples)"
        " AND record_id NOT IN (SELECT duplicate_of FROM duplicates) LIMIT 1"
    ).fetchall()
    story = explain(corpus, record)
    assert story["record"]["image_id"] == image
    assert "image" not in story["record"]
    assert "codes" not in story["tokens"][0]
    assert (story["tokens"][0]["rows"], story["tokens"][0]["columns"]) == (4, 4)
    assert (story["variants"][0]["model"], story["variants"][0]["seed"]) == ("replayed", 7)
    assert {score["variant_id"] for score in story["scores"]} == {"original"} | {
        variant["variant_id"] for variant in story["variants"]
    }
    assert story["samples"][0]["shard"] in story["outcome"]
    assert {event["stage"] for event in story["events"]} >= {"ingest", "score", "shards"}
    assert story["part"]["source"] == "folder"
    assert explain(corpus, image[:12]) == story
    assert explain(corpus, f"folder/{story['record']['key']}") == story
    json.dumps(story)


def test_a_duplicate_and_the_record_that_stays_name_each_other(made):
    _, corpus = open_corpus(made)
    sql = "SELECT record_id, duplicate_of FROM duplicates"
    ((duplicate, keeper),) = corpus.query(sql).fetchall()
    assert explain(corpus, duplicate)["duplicate_of"] == [keeper]
    assert "duplicate-image" in explain(corpus, duplicate)["outcome"]
    assert explain(corpus, keeper)["stands_for"] == [duplicate]


def test_a_score_below_its_threshold_is_told_with_both(made):
    _, corpus = open_corpus(made)
    ((record, score, threshold),) = corpus.query(
        "SELECT record_id, score, threshold FROM rejects"
        " WHERE reason = 'clip-score-below-threshold' LIMIT 1"
    ).fetchall()
    (told,) = [r for r in explain(corpus, record)["rejects"] if r["score"] == score]
    assert told["threshold"] == threshold
    words = f"its clip_score {score:.4g} is below {threshold:.4g}, the cut of the lowest 10 %"
    assert told["why"] == f"clip-score-below-threshold: {words}"


def test_what_ingest_rejected_is_found_by_its_key(made):
    story = explain(open_corpus(made)[1], "90.png")
    assert (story["record_id"], story["record"]) == (record_id("folder", "90.png"), None)
    assert "left out by ingest: decode-not-an-image" in story["outcome"]


def test_a_name_of_several_records_lists_them(made):
    _, corpus = open_corpus(made)
    ((image,),) = corpus.query(
        "SELECT image_id FROM records WHERE image_id IS NOT NULL GROUP BY ALL HAVING count(*) > 1"
    ).fetchall()
    with pytest.raises(UserError, match="means 2 records") as error:
        explain(corpus, image)
    assert error.value.hint.count(",") == 1


def test_an_unknown_record_says_where_it_was_looked_for(made):
    with pytest.raises(UserError, match="there is no record nope") as error:
        explain(open_corpus(made)[1], "nope")
    for place in ("parts of the records", "files of rejects", "list of forgotten"):
        assert place in error.value.hint


def test_a_forgotten_image_is_said_to_be_forgotten(root, quiet):
    _, corpus = open_corpus(root)
    sql = "SELECT image_id FROM records WHERE image_id IS NOT NULL ORDER BY key DESC LIMIT 1"
    ((image,),) = corpus.query(sql).fetchall()
    forget(root, [Entry(kind="image-id", value=image)], reporter=quiet)
    with pytest.raises(UserError) as error:
        explain(open_corpus(root)[1], image)
    assert "asked to forget" in error.value.hint


def test_a_record_that_is_on_its_way_is_told_so(recipe, quiet, tmp_path):
    fill(recipe, tmp_path / "begun", until="ingest", reporter=quiet)
    story = explain(open_corpus(tmp_path / "begun")[1], "03.png")
    assert story["outcome"].startswith("It is on its way")
    assert story["scores"] == []
