"""Corpora whose CLIP model somebody else has published."""

import json

import pytest
import torch
from safetensors.torch import save_file

from jobs.dry_run import plan
from jobs.embedding import text_encoder
from jobs.run import open_corpus
from pipeline.calibration import CALIBRATION_FILE
from pipeline.ledger.warnings import warnings
from pipeline.publish.card import write_card
from pipeline.publish.report import write_report
from pipeline.selection.cuts import read_cuts
from tests.filters.clip_models import saved
from tests.jobs.corpora import faults, files_of, refusal, run


def test_a_published_clip_scores_a_corpus_which_keeps_it(corpus, load, tmp_path):
    theirs = saved(tmp_path / "theirs")
    recipe = load(f"score.clip={{kind: open_clip, model: {theirs}}}", "duplicates.semantic=0.001")
    run(recipe, corpus)
    assert not faults(corpus)
    opened = open_corpus(corpus)[1]
    widths = opened.query("SELECT DISTINCT len(image_feature) FROM pictures").fetchall()
    assert widths == [(32,)]
    assert text_encoder(opened)(["a circle", "a square"]).shape == (2, 32)
    page = write_report(opened, None, embed=None).read_text()
    assert "was trained on this corpus" not in write_card(opened, embed=None).read_text()
    assert "take another score.clip" in page  # theirs has not been trained either
    before = files_of(corpus)
    for path in theirs.iterdir():
        path.unlink()
    run(recipe, corpus)
    assert files_of(corpus) == before


def cuts_of(corpus):
    """The numbers that the selection cuts by, and the AUC that warning, card and report tell."""
    folder = open_corpus(corpus)[1].models["cuts"]
    cuts = read_cuts(folder)
    auc = json.loads((folder / CALIBRATION_FILE).read_text())["auc"]
    return {name: cut.whole.value for name, cut in cuts.items()}, auc


def reasons(recipe, corpus, name):
    """Why a step would be done."""
    (step,) = (each for each in plan(recipe, corpus) if each.step == name)
    return step.reasons


@pytest.mark.parametrize("rule", ["quantile: 0.1", "false_accept: 0.2"])
def test_another_clip_is_cut_and_calibrated_by_its_own_scores(corpus, load, tmp_path, rule):
    theirs = saved(tmp_path / "theirs")
    rules = f"select.rules={{caption_quality: {{min: 1}}, clip_score: {{{rule}}}}}"
    run(load(rules), corpus, until="select")
    (cuts, auc), warned = cuts_of(corpus), warnings(open_corpus(corpus)[1])
    other = load(rules, f"score.clip={{kind: open_clip, model: {theirs}}}")
    assert "`scores` is written anew" in reasons(other, corpus, "cuts")
    run(other, corpus, until="select")
    assert set(cuts_of(corpus)[0]) == set(cuts)
    assert not set(cuts_of(corpus)[0].values()) & set(cuts.values())
    assert cuts_of(corpus)[1] != auc
    assert warnings(open_corpus(corpus)[1]) != warned
    # The way back finds the cuts that were pinned for the first.
    said = run(load(rules), corpus, until="select")
    assert "cuts           nothing has changed" in said
    assert cuts_of(corpus) == (cuts, auc)


def test_a_clip_that_is_fitted_again_is_calibrated_again(corpus, load):
    before = open_corpus(corpus)[1].models["cuts"]
    run(load("sources.0.num_records=160"), corpus, until="select", refit=["clip"])
    assert open_corpus(corpus)[1].models["cuts"] != before


@pytest.mark.parametrize(
    ("change", "is_cut_again"),
    [
        ("duplicates.pixels=false", True),
        ("rights.licences=[unknown]", True),
        ("sources.0.num_records=160", False),
    ],
)
def test_a_quota_is_counted_again_when_what_goes_before_it_changes_and_not_for_more_records(
    corpus, load, change, is_cut_again
):
    top = "select.top=[{score: caption_quality, most: 20}]"
    run(load(top), corpus, until="select")
    before = open_corpus(corpus)[1].models["cuts"]
    run(load(top, change), corpus, until="select")
    assert (open_corpus(corpus)[1].models["cuts"] != before) == is_cut_again


@pytest.mark.parametrize(("change", "is_kept"), [((), True), (("sources.0.num_records=160",), True),
                                                 (("score.clip.steps=3",), False)])  # fmt: skip
def test_cuts_of_an_earlier_version_are_taken_over_as_long_as_their_scores_are_live(
    corpus, load, change, is_kept
):
    path = open_corpus(corpus)[1].models["cuts"]
    told = json.loads((path / "model.json").read_text())
    told.pop("meanings")
    (path / "model.json").write_text(json.dumps(told))
    run(load(*change), corpus, until="select")
    assert (open_corpus(corpus)[1].models["cuts"] == path) == is_kept


def test_a_limit_on_a_heads_score_leaves_pictures_out_and_a_new_head_decides_anew(
    corpus, load, tmp_path
):
    head = tmp_path / "head.safetensors"
    theirs = saved(tmp_path / "theirs")

    def lost(bias):
        save_file({"weight": torch.zeros(1, 32), "bias": torch.tensor([bias])}, head)
        recipe = load(
            f"score={{clip: {{kind: open_clip, model: {theirs}}}, heads: {{aesthetic: {head}}}}}",
            "select.rules={aesthetic: {min: 5}}",
        )
        run(recipe, corpus, until="select")
        return open_corpus(corpus)[1].query(
            "SELECT reason, score, count(*) FROM rejects WHERE stage = 'select' GROUP BY ALL"
        ).fetchall()  # fmt: skip

    before = lost(6.0)
    assert ("aesthetic-below-threshold", 4.0) in {row[:2] for row in lost(4.0)}
    assert "aesthetic-below-threshold" not in {row[0] for row in before}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{kind: openclip}", [":4: score.clip", "it is trained (on the corpus) or open_clip"]),
        ("{kind: open_clip}", [":4: score.clip.model: it has to be given"]),
        ("{kind: open_clip, model: ViT-B-32}", [":4: score.clip", "pretrained says which weights"]),
        ("{kind: open_clip, model: ViT-B-32, pretrained: x, folds: 3}",
         ["score.clip.folds", "Allowed here: kind, model, pretrained, precision"]),
        ("{folds: 1}", [":4: score.clip.folds", "greater than or equal to 2"]),
        ("{fold: 1}", ["score.clip.fold", "Allowed here: kind, folds, image_size"]),
    ],
)  # fmt: skip
def test_a_wrong_clip_is_named(tmp_path, text, parts):
    said = refusal(tmp_path, f"score: {{clip: {text}}}")
    for part in parts:
        assert part in said


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("score: {heads: {aesthetic: recipe.yaml}}", [":4: score.heads", "one published model"]),
        ("score: {clip: {kind: open_clip, model: hf-hub:a/b}, heads: {ugly: a}}",
         [":4: score.heads.ugly", "allowed are aesthetic, nsfw"]),
        ("select: {rules: {nsfw: {max: 0.5}}}", [":4: select", "no such head in score.heads"]),
    ],
)  # fmt: skip
def test_a_head_that_cannot_score_is_named(tmp_path, text, parts):
    said = refusal(tmp_path, text)
    for part in parts:
        assert part in said
