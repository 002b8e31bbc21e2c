"""Counts add up, whatever state a corpus is in."""

from pathlib import Path

import duckdb

from jobs.run import open_corpus
from pipeline.engine.corpus import Corpus
from pipeline.engine.storage import read_json
from pipeline.publish import facts
from pipeline.selection.cuts import CUTS_FILE
from tests.pipeline.publish.conftest import NUM_FILES, NUM_SHAPES, NUM_TEXTS


def test_every_record_of_a_complete_corpus_has_one_end(corpus: Corpus) -> None:
    outcome = facts.record_outcome(corpus)
    assert outcome.given == NUM_SHAPES + NUM_FILES + NUM_TEXTS
    assert outcome.num_open == 0
    assert set(outcome.kept) == {"text", "image", "mixed"}
    assert sum(row.num_records for row in facts.stream_facts(corpus)) == outcome.num_kept
    rights, num_more = facts.rights_facts(corpus, limit=9)
    assert sum(row.num_kept for row in rights) == outcome.num_kept
    assert num_more == 0


def test_licences_beyond_the_limit_are_counted(corpus: Corpus) -> None:
    rights, num_more = facts.rights_facts(corpus, limit=2)
    assert [row.source for row in rights] == ["shapes", "pydoc"]
    assert num_more == 1
    assert facts.licences(corpus) == ["CC0-1.0", "PSF-2.0", "unknown"]


def test_every_text_that_the_llm_was_asked_for_has_one_end(corpus: Corpus) -> None:
    outcome = facts.text_outcome(corpus)
    ((num_asked,),) = corpus.query(
        "SELECT count(*) FROM (SELECT DISTINCT record_id, unnest(forms) FROM answers)"
    ).fetchall()
    assert outcome.given == num_asked > 3 * 16
    assert outcome.num_open == 0
    assert sum(row.num_kept for row in facts.writer_facts(corpus)) == outcome.num_kept
    assert {"synthesis-malformed-json", "synthesis-repeats-record"} <= {
        loss.reason for loss in outcome.losses
    }


def test_records_of_a_run_that_was_stopped_are_open(begun: Path) -> None:
    outcome = facts.record_outcome(open_corpus(begun)[1])
    assert outcome.num_kept == 0
    assert outcome.num_lost == 2  # without a caption, and damaged
    assert outcome.num_open == NUM_SHAPES + NUM_FILES + NUM_TEXTS - 2


def test_rules_count_what_they_left_out(corpus: Corpus) -> None:
    rules = {rule.says.what: rule for rule in facts.rule_facts(corpus)}
    assert list(rules) == ["caption_quality", "clip_score"]
    clip = rules["clip_score"]
    cut = read_json(corpus.models["cuts"] / CUTS_FILE)["lowest 0.2 by clip_score"]
    assert clip.says.least == cut["whole"]["value"]
    ((records, texts),) = corpus.query(
        "SELECT count(*) FILTER (variant_id IS NULL), count(variant_id) FROM rejects"
        " WHERE reason = 'clip-score-below-threshold'"
    ).fetchall()
    assert (clip.num_records, clip.num_texts) == (records, texts)
    assert records + texts > 0


def test_models_are_those_that_were_fitted(corpus: Corpus) -> None:
    assert {model.name for model in facts.model_facts(corpus)} == set(corpus.models)


def test_a_variant_whose_name_has_a_slash_is_one_text() -> None:
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE samples AS SELECT 'image' AS stream, ['r1/original', 'r1/original-a/b']"
        " AS variant_ids"
    )
    connection.execute(
        "CREATE TABLE selection (stream VARCHAR, record_id VARCHAR, variant_id VARCHAR)"
    )
    rows = connection.execute(f"{facts.KEPT} FROM kept").fetchall()
    assert sorted(rows) == [("image", "r1", "original"), ("image", "r1", "original-a/b")]
