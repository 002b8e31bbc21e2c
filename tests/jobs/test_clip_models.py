"""Corpora whose CLIP model somebody else has published."""

import pytest
import torch
from safetensors.torch import save_file

from jobs.embedding import text_encoder
from jobs.run import open_corpus
from pipeline.publish.card import write_card
from pipeline.publish.report import write_report
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
    assert "take another score.clip" in page
    before = files_of(corpus)
    for path in theirs.iterdir():
        path.unlink()
    run(recipe, corpus)
    assert files_of(corpus) == before


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
        ("{kind: openclip}", [":4: score.clip", "kind is trained (on the corpus) or open_clip"]),
        ("{kind: open_clip}", [":4: score.clip.model", "Field required"]),
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
