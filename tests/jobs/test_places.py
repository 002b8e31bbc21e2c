import pytest

from jobs.places import check_corpus, check_run
from jobs.recipe import load_recipe
from pipeline.errors import UserError
from tests.pipeline.sources.files import write_lines


@pytest.fixture
def recipe(tmp_path):
    """Loads a recipe with one source beside it."""
    write_lines(tmp_path / "data" / "sub" / "a.csv", "caption", "one")
    (tmp_path / "link").symlink_to(tmp_path / "data")

    def load(source):
        (tmp_path / "recipe.yaml").write_text(f"name: a\nsources: [{{{source}}}]\n")
        return load_recipe(tmp_path / "recipe.yaml")

    return load


FOLDER = "kind: folder, path: data"


@pytest.mark.parametrize(
    ("source", "corpus", "what"),
    [
        (FOLDER, "data", "would read"),
        (FOLDER, "data/corpus", "would read"),
        (FOLDER, "link/sub/corpus", "would read"),
        ("kind: folder, path: link", "data/corpus", "would read"),
        ("kind: folder, path: .", "a", "would read"),
        ("kind: table, path: 'data/**/*.csv'", "data/corpus", "would read"),
        ("kind: table, path: 'data/*/*.csv'", "data/corpus", "would read"),
        (FOLDER, ".", "lies in"),
        (FOLDER + "/sub", "data", "lies in"),
        ("kind: table, path: data/sub/a.csv", "link", "lies in"),
        ("kind: table, path: 'data/sub/*.csv'", "data", "lies in"),
    ],
)
def test_a_corpus_and_its_source_inside_each_other_are_refused(
    recipe, tmp_path, source, corpus, what, fault
):
    with pytest.raises(UserError, match=what) as error:
        check_corpus(recipe(source), tmp_path / corpus)
    assert error.value.exit_code == 2
    if corpus == "data/corpus" and source == FOLDER:
        sees = str(error.value).replace(str(tmp_path), "")
        fault("a corpus lies in a folder that a source reads", f"exit code 2: {sees}")


@pytest.mark.parametrize(
    ("source", "corpus"),
    [
        (FOLDER, "corpus"),
        (FOLDER, "data-corpus"),
        ("kind: table, path: data/sub/a.csv", "data/corpus"),
        ("kind: table, path: 'data/sub/*.csv'", "data/sub/corpus"),
        ("kind: table, path: 'data/s*/*.csv'", "data/corpus"),
        ("kind: shapes", "data"),
    ],
)
def test_a_corpus_beside_its_source_is_taken(recipe, tmp_path, source, corpus):
    check_corpus(recipe(source), tmp_path / corpus)


def test_a_run_inside_its_corpus_or_a_source_of_it_is_refused(recipe, tmp_path):
    corpus = tmp_path / "corpus"
    with pytest.raises(UserError, match="lies in the corpus"):
        check_run(recipe(FOLDER), corpus, corpus)
    with pytest.raises(UserError, match="would read the run"):
        check_run(recipe(FOLDER), corpus, tmp_path / "link" / "run")
    check_run(recipe(FOLDER), corpus, tmp_path / "run")
