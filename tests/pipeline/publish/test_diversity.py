"""The texts that are compared are a sample that is always the same, of all that were written."""

from pathlib import Path

import pytest

from jobs.embedding import text_encoder
from jobs.run import open_corpus
from pipeline.engine.corpus import Corpus
from pipeline.publish.diversity import ALL, STAYS, WRITTEN, text_diversity
from pipeline.synthesis.forms import FORMS
from tests.pipeline.publish.conftest import NEVER_WRITTEN


@pytest.fixture
def taken(rewritten: Path) -> Corpus:
    return open_corpus(rewritten)[1]


def test_every_text_that_the_critics_took_is_compared_in_a_small_corpus(taken: Corpus) -> None:
    found = text_diversity(taken, WRITTEN, embed=None)
    counts = dict(taken.query("SELECT kind, count(*) FROM variants GROUP BY ALL").fetchall())
    assert found.num_compared == found.num_texts == sum(counts.values())
    groups = found.kinds.groups
    assert {kind: groups[kind].num_texts for kind in counts} == counts
    assert list(groups) == ["original", ALL, "caption", "style", "negative", "text", "interleave"]
    assert list(found.forms.groups)[1:] == [form for form in FORMS if form in found.forms.groups]
    assert sum(group.num_texts for group in list(found.forms.groups.values())[1:]) == (
        found.num_texts
    )
    assert set(found.growth) == {"original", *counts}


def test_style_that_was_asked_for_and_never_written_counts_as_none(taken: Corpus) -> None:
    found = text_diversity(taken, WRITTEN, embed=None)
    assert found.num_by_style[NEVER_WRITTEN] == 0
    assert found.balance.ratio == 0
    assert found.balance.evenness < 1
    assert NEVER_WRITTEN not in found.styles.groups


def test_sample_is_the_texts_of_the_lowest_ids_and_their_records_captions(taken: Corpus) -> None:
    found = text_diversity(taken, WRITTEN, embed=None, size=31)
    assert text_diversity(taken, WRITTEN, embed=None, size=31) == found
    rows = taken.query(
        "SELECT record_id FROM variants ORDER BY record_id, variant_id LIMIT 31"
    ).fetchall()
    assert found.num_compared == 31
    assert found.kinds.groups["original"].num_texts == len(set(rows))
    assert found.num_texts == text_diversity(taken, WRITTEN, embed=None).num_texts


def test_text_for_many_records_is_named_with_their_number(taken: Corpus) -> None:
    ((num_dogs,),) = taken.query("SELECT count(*) FROM variants WHERE text = 'a dog'").fetchall()
    assert ("a dog", num_dogs) in text_diversity(taken, WRITTEN, embed=None).commonest


def test_texts_that_stay_are_those_in_the_shards(corpus: Corpus) -> None:
    ((num_shipped,),) = corpus.query(
        "SELECT count(*) FROM variants WHERE record_id || '/' || variant_id IN"
        " (SELECT unnest(variant_ids) FROM samples)"
    ).fetchall()
    encoder = text_encoder(corpus)
    stays = text_diversity(corpus, STAYS, embed=encoder)
    written = text_diversity(corpus, WRITTEN, embed=encoder)
    assert stays.num_texts == num_shipped < written.num_texts
    assert 0 < written.kinds.groups[ALL].spread < 2


def test_corpus_without_texts_or_a_model_has_no_diversity(begun: Path) -> None:
    corpus = open_corpus(begun)[1]
    assert text_encoder(corpus) is None
    assert text_diversity(corpus, WRITTEN, embed=None) is None
    assert text_diversity(corpus, STAYS, embed=None) is None
