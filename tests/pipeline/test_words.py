import pytest

from pipeline.engine.schemas import reject
from pipeline.words import meaning, why


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            {"reason": "clip-score-below-threshold", "detail": "the cut of the lowest 10 %",
             "score": 0.12, "threshold": 0.18},
            "its clip_score 0.12 is below 0.18, the cut of the lowest 10 %",
        ),
        (
            {"reason": "entropy-above-threshold", "score": 9.0, "threshold": 8.0},
            "its entropy 9 is above 8",
        ),
        (
            {"reason": "aesthetic-below-top", "detail": "the cut of the best 1,000 of the source a",
             "score": 4.25, "threshold": 5.5},
            "its aesthetic 4.25 is below 5.5, the cut of the best 1,000 of the source a",
        ),
        (
            {"reason": "no-alternative-met", "detail": "clip_score 0.2 is below 0.3",
             "score": 0.2, "threshold": 0.3},
            "of the sets of rules of which one must hold, none does (clip_score 0.2 is below 0.3)",
        ),
        ({"reason": "decode-empty"}, "the image has no bytes"),
    ],
)  # fmt: skip
def test_a_reject_is_told_by_its_code_and_then_in_words(columns, words):
    said = why(reject(record_id="r", stage="s", **columns))
    assert said.startswith(f"{columns['reason']}: {words}")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("entropy-below-threshold", "the image is blank, or nearly so"),
        (
            "language-score-below-threshold",
            "its language_score is below the least that the recipe keeps",
        ),
        ("clip-score-below-top", "its clip_score is not among the best that the recipe keeps"),
        ("not-known", ""),
    ],
)
def test_every_limit_has_a_meaning(reason, words):
    assert meaning(reason) == words


def test_a_code_that_nobody_has_explained_is_told_as_it_is():
    said = why(reject(record_id="r", stage="s", reason="not-known", detail="so it is", score=0.5))
    assert said == "not-known (so it is), its score is 0.5"
