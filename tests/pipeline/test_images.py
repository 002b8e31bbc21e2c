import io

import numpy as np
import pytest
from PIL import Image

from pipeline.images import ImageError, decode, fit_square


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def test_transparency_is_laid_on_white():
    image = decode(png(Image.new("RGBA", (4, 4), (0, 0, 0, 0))))
    assert image.mode == "RGB"
    assert image.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode):
    suffix = "TIFF" if mode == "CMYK" else "PNG"
    stream = io.BytesIO()
    Image.new(mode, (3, 5)).save(stream, suffix)
    image = decode(stream.getvalue())
    assert (image.mode, image.size) == ("RGB", (3, 5))


@pytest.mark.parametrize("content", [b"", b"no image", png(Image.new("RGB", (64, 64)))[:60]])
def test_damaged_bytes_are_an_image_error(content):
    with pytest.raises(ImageError) as error:
        decode(content)
    assert error.value.reason == "decode-failed"


def test_a_bomb_is_refused_before_it_is_decoded():
    with pytest.raises(ImageError) as error:
        decode(png(Image.new("RGB", (100, 100))), max_pixels=9_999)
    assert error.value.reason == "decode-too-many-pixels"


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (7, 100), (16, 16)])
def test_any_picture_becomes_a_square(size):
    assert fit_square(Image.new("RGB", size, "red"), 16).shape == (16, 16, 3)


def test_a_square_of_the_right_size_is_left_alone():
    pixels = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    assert (fit_square(Image.fromarray(pixels), 16) == pixels).all()
