import io
import math
import pydoc_data.topics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from filters.picture import picture_scores
from pipeline.sources.shapes import draw

PROSE = " ".join(pydoc_data.topics.topics["assert"].split())
SIDES = st.integers(1, 24)
PIXELS = st.tuples(SIDES, SIDES, st.just(3)).flatmap(
    lambda shape: arrays.arrays(np.uint8, shape, elements=st.integers(0, 255))
)


def page(size, *, side=512):
    """A page of prose in letters of a size."""
    image = Image.new("RGB", (side, side), "white")
    font = ImageFont.load_default(size)
    for number, top in enumerate(range(4, side - size, int(1.3 * size))):
        ImageDraw.Draw(image).text((4, top), PROSE[number * 40 :], fill="black", font=font)
    return image


def noise(side=128, *, levels=256):
    pixels = np.random.default_rng(0).integers(0, levels, (side, side, 3), np.uint8)
    return Image.fromarray(pixels)


def framed(image, width, colour):
    """The image with a band of a colour around it, kept as a JPEG."""
    whole = Image.new("RGB", (image.width + 2 * width, image.height + 2 * width), colour)
    whole.paste(image, (width, width))
    stream = io.BytesIO()
    whole.save(stream, "JPEG", quality=30)
    return Image.open(stream).convert("RGB")


def test_a_blank_picture_has_nothing_but_size_and_border():
    scores = picture_scores(Image.new("RGB", (300, 200), "grey"))
    assert scores._asdict() == {
        "short_side": 200.0,
        "aspect_ratio": 1.5,
        "entropy": 0.0,
        "sharpness": 0.0,
        "colourfulness": 0.0,
        "text_share": 0.0,
        "border": 1.0,
    }


def test_two_equal_halves_have_one_bit():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    assert picture_scores(Image.fromarray(pixels)).entropy == pytest.approx(1.0)


def test_noise_comes_near_eight_bits():
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 1), np.uint8).repeat(3, 2)
    assert 7.9 < picture_scores(Image.fromarray(pixels)).entropy <= 8.0


def test_the_more_a_picture_is_blurred_the_less_sharp_it_is():
    image, _ = draw(1, size=128, seed=0)
    blurred = [image.filter(ImageFilter.GaussianBlur(radius)) for radius in (0, 1, 2, 4)]
    sharpness = [picture_scores(each).sharpness for each in blurred]
    assert sharpness == sorted(sharpness, reverse=True)
    assert sharpness[0] > 10 * sharpness[-1]


def test_colourfulness_is_that_of_the_formula():
    pixels = np.zeros((2, 1, 3), np.uint8)
    pixels[0, 0] = (255, 0, 0)  # red - green: 255, yellow - blue: 127.5; the other pixel: 0, 0
    expected = math.hypot(127.5, 63.75) + 0.3 * math.hypot(127.5, 63.75)
    assert picture_scores(Image.fromarray(pixels)).colourfulness == pytest.approx(expected)


@pytest.mark.parametrize("size", [12, 16, 20, 24, 32])
def test_a_page_of_prose_looks_like_text(size):
    assert picture_scores(page(size)).text_share > 0.2
    assert picture_scores(page(2 * size, side=1024)).text_share > 0.2


def test_shapes_and_noise_do_not_look_like_text():
    shapes = [picture_scores(draw(index, size=256, seed=0)[0]).text_share for index in range(50)]
    assert max(shapes) == 0
    assert picture_scores(noise(256)).text_share == 0
    stripes = np.tile(np.repeat(np.array([0, 255], np.uint8), 4), 32)
    image = Image.fromarray(np.broadcast_to(stripes[:, None], (256, 256)).copy()).convert("RGB")
    for turned in (image, image.transpose(Image.Transpose.ROTATE_90)):
        assert picture_scores(turned).text_share == 0


@pytest.mark.parametrize("colour", ["white", "black", "navy"])
def test_a_border_is_the_share_of_its_area(colour):
    image = framed(noise(128, levels=200), 16, colour)
    assert picture_scores(image).border == pytest.approx(1 - (128 / 160) ** 2, abs=0.02)


def test_a_letterbox_is_a_border_and_noise_has_none():
    image = Image.new("RGB", (128, 160))
    image.paste(noise(128), (0, 16))
    assert picture_scores(image).border == pytest.approx(32 / 160)
    assert picture_scores(noise(128)).border == 0


@settings(max_examples=100)
@given(PIXELS)
def test_every_picture_has_scores_in_their_ranges(pixels):
    scores = picture_scores(Image.fromarray(pixels))
    assert all(map(math.isfinite, scores))
    assert scores.short_side >= 1
    assert scores.aspect_ratio >= 1
    assert 0 <= scores.entropy <= 8
    assert scores.sharpness >= 0
    assert scores.colourfulness >= 0
    assert 0 <= scores.text_share <= 1
    assert 0 <= scores.border <= 1


@settings(max_examples=50)
@given(PIXELS)
def test_a_picture_on_its_side_has_the_same_scores(pixels):
    image = Image.fromarray(pixels)
    turned = picture_scores(image.transpose(Image.Transpose.TRANSPOSE))
    assert turned == pytest.approx(picture_scores(image), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (3000, 200), (2, 3)])
def test_extreme_sizes_have_scores(size):
    scores = picture_scores(Image.new("RGB", size))
    assert scores.short_side == min(size)
    assert scores.aspect_ratio == max(size) / min(size)
    assert scores.border == 1
