"""Corpora whose image tokenizer somebody else has trained."""

import pytest
import torch
from rich.console import Console

from jobs.recipe import load_recipe
from jobs.run import open_corpus
from jobs.stages import vocabulary
from jobs.training import train_model
from pipeline.publish.card import write_card
from pipeline.publish.report import write_report
from tests.jobs.corpora import faults, files_of, refusal, run
from tests.tokenizer_cache.published_models import GRID, NUM_CODES, SIZE, saved
from trainer.generate.sample import draw
from trainer.run import load_run


@pytest.fixture
def weights(tmp_path):
    def save(kind):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            saved(kind, tmp_path / kind)
        return tmp_path / kind

    return save


def test_a_published_tokenizer_goes_all_the_way_to_a_trained_model(corpus, load, weights, tmp_path):
    recipe = load(
        f"image_tokenizer={{kind: janus, weights: {weights('janus')}}}",
        "shards.code_order=coarse-first",
    )
    said = run(recipe, corpus)
    assert "score" not in {line.split()[0] for line in said.splitlines() if "nothing" not in line}
    assert not faults(corpus)
    held = vocabulary(*open_corpus(corpus)).image
    assert (held.grid, held.size, held.order) == (GRID, NUM_CODES, "coarse-first")
    train_model(recipe, corpus, tmp_path / "run", fresh=False, console=Console(quiet=True))
    trained = load_run(tmp_path / "run")
    assert trained.vocabulary.image == held
    (picture,) = draw(trained, ["a red square"], recipe.sample)
    assert picture.size == (SIZE, SIZE)


def test_later_changes_of_the_weights_move_no_code(corpus, load, weights):
    place = weights("janus")
    recipe = load(f"image_tokenizer={{kind: janus, weights: {place}}}")
    run(recipe, corpus)
    before = files_of(corpus)
    for path in place.iterdir():
        path.unlink()
    run(recipe, corpus)
    assert files_of(corpus) == before


def test_a_tokenizer_without_a_decoder_has_a_report_without_psnr(corpus, load, weights):
    run(load(f"image_tokenizer={{kind: chameleon, weights: {weights('chameleon')}}}"), corpus)
    assert not faults(corpus)
    opened = open_corpus(corpus)[1]
    for page in (write_report(opened, None, embed=None), write_card(opened, embed=None)):
        assert " dB" not in page.read_text()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{kind: janus}", [":4: image_tokenizer.weights: it has to be given"]),
        ("{kind: dalle, weights: a/b}", [":4: image_tokenizer.kind", "janus"]),
        ("{kind: janus, weights: nowhere}", ["there is no such file or folder", "'nowhere'"]),
        ("{kind: janus, weights: /no/where}", ["there is no such file or folder", "'/no/where'"]),
        ("{kind: janus, weights: a/b, steps: 3}",
         ["image_tokenizer.steps", "Allowed here: kind, weights, image_size"]),
        ("{steps: 0}", [":4: image_tokenizer.steps", "greater than or equal to 1"]),
        ("{codes: 3}", ["image_tokenizer.codes", "Allowed here: kind, preset, image_size"]),
    ],
)  # fmt: skip
def test_a_wrong_image_tokenizer_is_named(tmp_path, text, parts):
    said = refusal(tmp_path, f"image_tokenizer: {text}")
    for part in parts:
        assert part in said


def test_a_name_on_the_hub_needs_no_folder(tmp_path):
    path = tmp_path / "recipe.yaml"
    start = "name: a\nsources:\n  - kind: shapes\n"
    path.write_text(start + "image_tokenizer: {kind: emu3, weights: owner/name@main}\n")
    assert load_recipe(path).image_tokenizer.weights == "owner/name@main"
    (tmp_path / "mine").mkdir()
    path.write_text(start + "image_tokenizer: {kind: emu3, weights: mine}\n")
    assert load_recipe(path).image_tokenizer.weights == str(tmp_path / "mine")
