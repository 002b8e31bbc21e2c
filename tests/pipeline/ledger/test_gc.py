import pytest

from jobs.run import fill, open_corpus
from jobs.upkeep import collect_garbage
from pipeline.engine.lock import holding
from pipeline.errors import UserError
from pipeline.ledger.audit import audit
from pipeline.ledger.gc import find_garbage
from pipeline.selection.settings import Rule, SelectSettings
from tests.jobs.corpora import files_of


@pytest.fixture
def twice(root, recipe, quiet):
    """A corpus that was filled by another recipe in between."""
    select = SelectSettings(rules={"clip_score": Rule(quantile=0.4)})
    other = recipe.model_copy(
        update={
            "select": select,
            "shards": recipe.shards.model_copy(update={"records_per_document": 1}),
        }
    )
    fill(other, root, until=None, reporter=quiet)
    fill(recipe, root, until=None, reporter=quiet)
    return root


def test_a_corpus_of_one_recipe_has_no_garbage(made):
    assert find_garbage(open_corpus(made)[1]) == []


def test_what_another_recipe_left_goes_and_nothing_else(twice, made):
    found = collect_garbage(twice, lambda _: True)
    kinds = {garbage.path.relative_to(twice).parts[0] for garbage in found}
    assert kinds == {"tables", "models", "shards"}
    assert all(garbage.size_bytes > 0 and garbage.num_files > 0 for garbage in found)
    assert files_of(twice) == files_of(made)
    assert not [finding for finding in audit(open_corpus(twice)[1]) if finding.faults]


def test_without_consent_nothing_goes(twice):
    before = files_of(twice)
    assert collect_garbage(twice, lambda _: False) == []
    assert files_of(twice) == before


def test_parts_that_are_no_longer_there_go(root, recipe, quiet):
    fewer = recipe.model_copy(update={"sources": recipe.sources[:1]})
    fill(fewer, root, until=None, reporter=quiet)
    found = find_garbage(open_corpus(root)[1])
    assert any("pydoc" in garbage.path.name for garbage in found)
    collect_garbage(root, lambda _: True)
    assert not list(root.rglob("pydoc-*"))
    assert not [finding for finding in audit(open_corpus(root)[1]) if finding.faults]


def test_a_corpus_that_is_not_filled_keeps_everything(root):
    next((root / "tables" / "scores").rglob("*.parquet")).unlink()
    with pytest.raises(UserError, match="not filled to its end"):
        collect_garbage(root, lambda _: True)


def test_a_corpus_that_is_being_filled_is_left_alone(root):
    with holding(root), pytest.raises(UserError, match="is being filled"):
        collect_garbage(root, lambda _: True)


def test_answers_for_a_part_that_is_asked_otherwise_go(root, keep_answers):
    _, corpus = open_corpus(root)
    path = keep_answers(root, corpus.parts[0].name, "r")
    (garbage,) = find_garbage(corpus)
    assert garbage.path == path.parent.parent
    collect_garbage(root, lambda _: True)
    assert not path.exists()
