"""The oracle of the coloured shapes is exact on true pictures and strict on all others."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pipeline.sources.shapes import KINDS, Placed, ShapesSettings, draw, paint
from trainer.evaluate.shapes import fresh_pairs, judge, kind_of, read_scene, shows
from trainer.evaluate.share import Share


def source(**settings: float) -> ShapesSettings:
    return ShapesSettings.model_validate({"kind": "shapes", "seed": 5, **settings})


@pytest.mark.parametrize("size", [32, 64])
def test_every_true_picture_shows_what_its_caption_says(size: int) -> None:
    pairs = fresh_pairs(300, source(size=size), held_out=False)
    found = judge([picture for picture, _ in pairs], [caption for _, caption in pairs])
    assert {name: share.value for name, share in found.items()} == dict.fromkeys((*KINDS, "all"), 1)
    assert found["all"].num == 300


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5])
def test_fresh_captions_have_a_held_out_combination_or_none(share: float) -> None:
    settings = source(held_out=share)
    combinations = settings.held_out_combinations
    for held_out in (False, True):
        pairs = fresh_pairs(100, settings, held_out=held_out)
        for picture, caption in pairs:
            shown = {(each.colour, each.shape) for each in read_scene(picture).shapes}
            assert bool(shown & combinations) is held_out
            assert all(f"{colour} {shape}" in caption for colour, shape in shown)
        assert {kind_of(caption) for _, caption in pairs} == set(KINDS)


def test_hardly_a_picture_shows_what_another_caption_says() -> None:
    pairs = fresh_pairs(300, source(), held_out=False)
    shuffled = [caption for _, caption in pairs[5:] + pairs[:5]]
    assert judge([picture for picture, _ in pairs], shuffled)["all"].value < 0.02


def test_captions_are_of_the_kinds_that_the_source_draws_in_turn() -> None:
    for index in range(50):
        _, caption = draw(index, size=32, seed=1)
        assert kind_of(caption) == KINDS[index % 5]
    assert kind_of("a cat") is None
    with pytest.raises(ValueError, match="is no caption of the shapes"):
        shows(read_scene(paint([], ground="white", size=32)), "a cat")


@pytest.mark.parametrize(
    ("placed", "caption", "right"),
    [
        ([Placed("red", "circle", (0, 0))], "a red circle", True),
        ([Placed("red", "circle", (0, 0))], "a blue circle", False),
        ([Placed("red", "circle", (0, 0))], "a red square", False),
        ([], "a red circle", False),
        ([Placed("red", "circle", (0, 0)), Placed("blue", "cross", (1, 1))], "a red circle", False),
        ([Placed("red", "cross", (n, 0)) for n in range(3)], "three red crosses", True),
        ([Placed("red", "cross", (n, 0)) for n in range(2)], "three red crosses", False),
        (
            [Placed("red", "circle", (0, 2)), Placed("blue", "square", (2, 0))],
            "a red circle left of a blue square", True,
        ),
        (
            [Placed("red", "circle", (0, 2)), Placed("blue", "square", (2, 0))],
            "a red circle above a blue square", False,
        ),
        (
            [Placed("blue", "circle", (0, 2)), Placed("red", "square", (2, 0))],
            "a red circle and a blue square", False,
        ),
        (
            [Placed("red", "circle", (1, 1)), Placed("red", "circle", (1, 0))],
            "a red circle and a red circle", True,
        ),
    ],
)  # fmt: skip
def test_a_picture_shows_a_caption_and_nothing_else(
    placed: list[Placed], caption: str, right: bool
) -> None:
    assert shows(read_scene(paint(placed, ground="white", size=32)), caption) is right


def test_the_ground_counts() -> None:
    scene = read_scene(paint([Placed("red", "circle", (1, 1))], ground="blue", size=32))
    assert scene.ground == "blue"
    assert shows(scene, "a red circle on a blue ground")
    assert not shows(scene, "a red circle on a green ground")
    assert not shows(scene, "a red circle")


def test_a_little_blur_is_read_and_noise_is_nothing() -> None:
    pairs = fresh_pairs(100, source(), held_out=False)
    blurred = [picture.filter(ImageFilter.GaussianBlur(0.7)) for picture, _ in pairs]
    assert judge(blurred, [caption for _, caption in pairs])["all"].value > 0.95
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    assert not read_scene(Image.fromarray(noise)).is_clear


def test_the_interval_is_wilsons() -> None:
    low, high = Share(num_right=45, num=50).interval
    assert (low, high) == pytest.approx((0.7864, 0.9565), abs=1e-4)
    assert Share(num_right=0, num=0).interval == (0.0, 1.0)
    assert Share(num_right=50, num=50).interval[1] == pytest.approx(1.0)
