"""Corpora whose CLIP model somebody else has published."""

import pytest

from jobs.embedding import text_encoder
from jobs.recipe import load_recipe
from jobs.run import open_corpus
from pipeline.errors import UserError
from pipeline.publish.card import write_card
from pipeline.publish.report import write_report
from tests.filters.clip_models import saved
from tests.jobs.corpora import faults, files_of, run


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
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: a\nsources:\n  - kind: shapes\nscore: {{clip: {text}}}\n")
    with pytest.raises(UserError) as error:
        load_recipe(path)
    for part in parts:
        assert part in str(error.value)
