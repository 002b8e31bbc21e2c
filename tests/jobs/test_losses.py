"""A failure of the whole is loud: sources, kinds of text and selections that leave nothing."""

import pytest
import yaml
from PIL import Image
from rich.console import Console

from jobs.display import print_outcome
from jobs.recipe import load_recipe
from jobs.run import open_corpus
from pipeline.errors import StarvedError, UserError
from pipeline.ledger.losses import losses
from pipeline.ledger.status import status
from tests.jobs.corpora import SMALL_MODELS, faults, run


def pictures(folder, num, captions):
    folder.mkdir()
    for number in range(num):
        Image.new("RGB", (40, 40), (number * 20, 0, 0)).save(folder / f"{number}.png")
        if number < captions:
            (folder / f"{number}.txt").write_text(f"a square number {number}")


def recipe_of(tmp_path, *folders):
    sources = [{"kind": "folder", "path": name, "name": name} for name in folders]
    text = yaml.safe_dump({"name": "a", "sources": sources, "run": {"num_workers": 0}})
    path = tmp_path / "recipe.yaml"
    path.write_text(text + SMALL_MODELS)
    return load_recipe(path)


def without_example(message):
    """What does not change with the words of a reject."""
    return f"{message.partition(', e.g.')[0]}, and an example"


def test_a_source_that_loses_most_of_its_rows_is_told_with_the_reason_and_an_example(
    tmp_path, fault
):
    pictures(tmp_path / "good", 4, 4)
    pictures(tmp_path / "half", 4, 2)
    pictures(tmp_path / "bad", 4, 1)
    (tmp_path / "none").mkdir()
    run(recipe_of(tmp_path, "good", "half", "bad", "none"), tmp_path / "c", until="ingest")
    corpus = open_corpus(tmp_path / "c")[1]
    of_bad, of_none = losses(corpus)
    assert of_bad.startswith("source 'bad': 3 of 4 rows were rejected, all for ingest-no-caption")
    assert ", e.g. 1.png: " in of_bad
    assert of_none == f"source 'none' has no record: there is nothing to read in {tmp_path}/none"
    assert status(corpus)["warnings"] == [of_bad, of_none]
    fault(
        "a source loses more than half of its rows",
        f"the run, at its end: {without_example(of_bad)}",
    )
    print_outcome(corpus, console := Console(record=True, width=300))
    assert f"warning: {of_bad}" in console.export_text()


def test_a_fit_that_rejects_have_left_nothing_names_them(tmp_path, fault):
    pictures(tmp_path / "bad", 3, 0)
    with pytest.raises(StarvedError, match="CLIP cannot be trained") as error:
        run(recipe_of(tmp_path, "bad"), tmp_path / "c")
    assert "source 'bad': 3 of 3 rows were rejected, all for ingest-no-caption" in str(error.value)
    assert "texts alone" not in error.value.hint
    assert error.value.exit_code == 1
    fault(
        "all rows of all sources are rejected",
        f"exit code 1: {without_example(error.value.message)}",
    )


@pytest.mark.parametrize("num", [1, 3])
def test_a_few_pictures_are_enough_to_try_everything(tmp_path, num):
    pictures(tmp_path / "few", num, num)
    run(recipe_of(tmp_path, "few"), tmp_path / "c")
    assert not faults(tmp_path / "c")
    print_outcome(open_corpus(tmp_path / "c")[1], Console(quiet=True))


def test_a_selection_that_leaves_nothing_ends_with_exit_code_1(corpus, load, fault):
    run(load("select.rules={short_side: {min: 5000}, num_words: {min: 5000}}"), corpus)
    with pytest.raises(UserError, match="no record is in a shard: 160 were left out") as error:
        print_outcome(open_corpus(corpus)[1], Console(quiet=True))
    assert error.value.exit_code == 1
    assert "119 of them for short-side-below-threshold, e.g. record " in str(error.value)
    assert " has 32 for 5000" in str(error.value)
    assert not faults(corpus)
    fault("the rules keep nothing", f"exit code 1: {without_example(error.value.message)}")
