import pytest

from tests.trainer.conftest import Squares
from trainer.evaluate.captions import best_f1, caption_f1
from trainer.evaluate.likelihood import pairs_of
from trainer.evaluate.settings import EvaluateSettings
from trainer.generate.settings import SampleSettings
from trainer.run import Run


@pytest.mark.parametrize(
    ("text", "captions", "f1"),
    [
        ("A red circle.", ["a red circle"], 1),
        ("red red circle", ["a red circle"], 4 / 5),
        ("the blue circle", ["a red circle", "blue"], 2 / 3),
        ("cat", ["a red circle"], 0),
        ("", ["a red circle"], 0),
    ],
)
def test_f1_is_squads(text: str, captions: list[str], f1: float) -> None:
    assert best_f1(text, captions) == pytest.approx(f1)


def test_descriptions_of_squares_say_what_their_captions_say(
    trained: Run, squares: Squares
) -> None:
    pairs = pairs_of(squares.manifest, "validation", 32)
    found = caption_f1(trained, pairs, EvaluateSettings(max_described=16), SampleSettings())
    assert found is not None
    assert found.num_pictures == 16
    assert found.shuffled is not None
    assert found.own > found.shuffled + 0.1
    assert f"{found.own:.2f}" in found.sentence()
    assert caption_f1(trained, [], EvaluateSettings(), SampleSettings()) is None
