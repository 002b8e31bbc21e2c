import io

import numpy as np
import pytest
from PIL import Image

from pipeline.images import ImageError, Limits, decode, fit_square, inspect
from tests.faults.bad_records import PICTURES, encoded, svg


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


@pytest.mark.parametrize("bad", PICTURES, ids=lambda bad: bad.name)
def test_a_bad_picture_is_repaired_or_has_a_reason(bad):
    limits = Limits(min_side=4, max_aspect_ratio=20)
    if bad.reason is None:
        decoded = inspect(bad.make(), limits)
        assert decoded.repairs == bad.repairs
        assert decoded.image.mode == "RGB"
    else:
        with pytest.raises(ImageError) as error:
            inspect(bad.make(), limits)
        assert error.value.reason == bad.reason
        assert str(error.value)


def test_a_photograph_is_turned_upright():
    turned = Image.new("RGB", (32, 16), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(turned, "JPEG", exif=exif)).size == (16, 32)


def test_16_bits_are_scaled_and_not_cut_off():
    values = np.array([[0, 255, 256, 32_768, 65_535]], np.uint16)
    pixels = np.asarray(decode(encoded(Image.fromarray(values))))
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_a_drawing_never_reads_a_file(tmp_path):
    Image.new("RGB", (10, 10), "lime").save(tmp_path / "secret.png")
    for href in (f"{tmp_path}/secret.png", f"&#x2f;{str(tmp_path)[1:]}/secret.png"):
        with pytest.raises(ImageError) as error:
            decode(svg(f'<image width="10" height="10" xlink:href="{href}"/>'))
        assert error.value.reason == "decode-svg-external-reference"


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (7, 100), (16, 16)])
def test_any_picture_becomes_a_square(size):
    assert fit_square(Image.new("RGB", size, "red"), 16).shape == (16, 16, 3)


def test_a_square_of_the_right_size_is_left_alone():
    pixels = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    assert (fit_square(Image.fromarray(pixels), 16) == pixels).all()
