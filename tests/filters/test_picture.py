import numpy as np
import pytest
from PIL import Image

from filters.picture import picture_scores


def test_a_blank_picture_has_no_entropy():
    assert picture_scores(Image.new("RGB", (30, 20), "green")) == (20.0, 1.5, 0.0)


def test_two_equal_halves_have_one_bit():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    assert picture_scores(Image.fromarray(pixels)).entropy == pytest.approx(1.0)


def test_noise_comes_near_eight_bits():
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 1), np.uint8).repeat(3, 2)
    assert 7.9 < picture_scores(Image.fromarray(pixels)).entropy <= 8.0
