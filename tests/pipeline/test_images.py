import base64
import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pillow_heif
import pillow_jxl  # noqa: F401 - registers itself for writing
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.images import ImageError, Limits, decode, fit_square, inspect
from tests.faults.bad_pictures import PICTURES, svg, svg_with
from tests.faults.bad_records import encoded, noise
from tests.pipeline.image_files import chunk, swapped_profile, tga

pillow_heif.register_heif_opener()


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
        said = str(error.value)
        # Neither the name of an exception nor of an object: a person is to understand it.
        assert said
        assert not any(word in said for word in ("Error", "<_io", "cannot identify", "PIL"))


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


@pytest.mark.parametrize(
    "quoted", ["#g", "'#g'", '"#g"', " '#g' ", " #g"], ids=["", "one", "two", "spaces", "space"]
)
def test_a_drawing_may_name_its_own_parts_in_quotes(quoted):
    stops = '<linearGradient id="g"><stop stop-color="red"/></linearGradient>'
    style = f"<style>rect {{ fill: url({quoted}) }}</style>"
    image = decode(svg(f'{style}{stops}<rect width="20" height="10"/>'))
    assert image.getpixel((9, 9)) == (255, 0, 0)


@pytest.mark.parametrize("target", ["a.png", "'a.png'", '" a.png"', "'' a.png", "\"'a.png'\""])
def test_a_style_that_names_a_file_is_refused(target):
    with pytest.raises(ImageError) as error:
        decode(svg(f"<style>rect {{ fill: url({target}) }}</style>"))
    assert error.value.reason == "decode-svg-external-reference"


@pytest.mark.parametrize("unit", ["mm", "cm", "in", "pt", "pc", "px", ""])
def test_a_drawing_in_any_unit_is_drawn(unit):
    drawing = svg('<rect width="20" height="10" fill="red"/>').decode()
    sized = drawing.replace("<svg", f'<svg width="30{unit}" height="15{unit}"', 1)
    assert decode(sized.encode()).tobytes() == Image.new("RGB", (512, 256), "red").tobytes()


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (7, 100), (16, 16)])
def test_any_picture_becomes_a_square(size):
    assert fit_square(Image.new("RGB", size, "red"), 16).shape == (16, 16, 3)


def test_a_square_of_the_right_size_is_left_alone():
    pixels = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    assert (fit_square(Image.fromarray(pixels), 16) == pixels).all()


PNG, JPEG = encoded(noise()), encoded(noise(), "JPEG")


def with_chunk(kind, payload, checksum=None):
    return PNG[:33] + chunk(kind, payload, checksum) + PNG[33:]


def same(content, other):
    return decode(content).tobytes() == decode(other).tobytes()


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from([b"tEXt", b"zTXt", b"iTXt", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"tIME",
                          b"hIST", b"sBIT", b"acTL", b"fcTL", b"abCd", b"iCCP", b"tRNS"]),
    payload=st.binary(max_size=40),
    is_right=st.booleans(),
    is_before=st.booleans(),
)  # fmt: skip
def test_no_chunk_beside_the_pixels_costs_a_png(kind, payload, is_right, is_before):
    piece = chunk(kind, payload, None if is_right else 7)
    at = 33 if is_before else len(PNG) - 12
    found = inspect(PNG[:at] + piece + PNG[at:], Limits())
    is_clear = kind == b"tRNS" and len(payload) == 6
    assert is_clear or found.image.tobytes() == decode(PNG).tobytes()


@settings(max_examples=60, deadline=None)
@given(marker=st.sampled_from([*range(0xE3, 0xEE), 0xEF, 0xFE]), payload=st.binary(max_size=60))
def test_no_segment_beside_the_pixels_costs_a_jpeg(marker, payload):
    segment = struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload
    assert same(JPEG[:2] + segment + JPEG[2:], JPEG)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_that_breaks_off_is_kept_only_with_all_its_pixels(options):
    whole = encoded(noise(size=(40, 40)), "JPEG", **options)
    outcomes = set()
    for missing in range(1, 60):
        try:
            assert same(whole[:-missing], whole)
            outcomes.add("kept")
        except ImageError as error:
            outcomes.add(error.reason)
    assert outcomes == {"kept", "decode-truncated"}


def test_a_long_profile_of_a_png_is_still_honoured():
    profile = swapped_profile()
    padded = struct.pack(">I", 2 << 20) + profile[4:].ljust((2 << 20) - 4, b"\0")
    content = encoded(Image.new("RGB", (8, 8), "red"))
    found = inspect(
        content[:33] + chunk(b"iCCP", b"a\0\0" + zlib.compress(padded)) + content[33:], Limits()
    )
    assert found.repairs == ("long-metadata", "icc-profile")
    red, green, blue = found.image.getpixel((0, 0))
    assert blue > 250
    assert max(red, green) < 5


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=18, max_size=400))
def test_other_bytes_are_never_a_tga(content):
    with pytest.raises(ImageError):
        inspect(content, Limits())


def test_the_beginning_of_another_file_is_never_a_tga():
    for content in (PNG, JPEG, encoded(noise(), "BMP"), b"<html></html>", b'{"a": 1}', bytes(999)):
        for start in range(0, min(len(content), 64)):
            try:
                assert inspect(content[start:], Limits()).format != "TGA"
            except ImageError as error:
                assert "TGA" not in str(error)  # noqa: PT017


def test_a_tga_that_breaks_off_is_no_tga():
    content = tga(bytes(300), 10, 10, kind=2, bits=24, descriptor=0)
    assert inspect(content, Limits()).format == "TGA"
    with pytest.raises(ImageError, match="no image that is read here"):
        inspect(content[:-1], Limits())


@pytest.mark.parametrize(("module", "form", "extra"), [("pillow_heif", "HEIF", "heif"),
                                                       ("pillow_jxl", "JXL", "jxl")])  # fmt: skip
def test_a_plug_in_is_loaded_when_it_is_needed_or_named_where_it_is_missing(
    tmp_path, module, form, extra
):
    path = tmp_path / "picture"
    path.write_bytes(encoded(noise(), form))
    code = (
        "import sys, pathlib\nfrom pipeline.images import Limits, inspect\n"
        f"assert '{module}' not in sys.modules\n"
        "if len(sys.argv) > 2: sys.modules[sys.argv[2]] = None\n"
        "print(inspect(pathlib.Path(sys.argv[1]).read_bytes(), Limits()).format)"
    )
    command = [sys.executable, "-c", code, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == form, done.stderr
    done = subprocess.run([*command, module], capture_output=True, text=True, check=False)
    assert f"pip install 'anymix[{extra}]' reads it" in done.stderr


def test_a_jpeg_xl_bomb_is_known_before_it_is_decoded():
    side = 0b11 | (99_999 << 2)  # the longest kind of number: 30 bits
    bits = 0 | side << 1 | 1 << 33  # as wide as it is high
    with pytest.raises(ImageError) as error:
        inspect(b"\xff\x0a" + bits.to_bytes(99, "little"), Limits())
    assert error.value.reason == "decode-too-many-pixels"
    assert "100000 x 100000" in str(error.value)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_a_drawing_shows_the_pictures_in_it(form):
    blue = encoded(Image.new("RGB", (32, 16), "blue"), form)
    red, green, blue = decode(svg_with(blue)).getpixel((200, 100))
    assert blue > 240
    assert max(red, green) < 15


def test_a_drawing_may_hold_as_many_pixels_as_a_picture():
    data = base64.b64encode(encoded(Image.new("1", (100, 100)))).decode()
    inside = f'<image width="9" height="9" href="data:;base64,{data}"/>' * 3
    assert inspect(svg(inside), Limits(max_pixels=200_000)).image.size == (512, 256)
    with pytest.raises(ImageError, match="a picture in the drawing: 100 x 100 is more than"):
        inspect(svg(inside), Limits(max_pixels=20_000))


@pytest.mark.parametrize("size", [0, 4, 12])
def test_a_png_whose_header_has_another_length_is_damaged(size):
    header = PNG[16:29][:size]
    with pytest.raises(ImageError) as error:
        inspect(PNG[:8] + chunk(b"IHDR", header) + PNG[33:], Limits())
    assert error.value.reason == "decode-failed"


DRAWN = '<?xml version="1.0" encoding="{}"?>' + svg('<text y="9">ж</text>').decode()


@pytest.mark.parametrize(
    ("declared", "codec"),
    [("UTF-8", "utf-8"), ("UTF-8", "utf-8-sig"), ("UTF-16", "utf-16"), ("UTF-16", "utf-16-be"),
     ("UTF-16", "utf-16-le"), ("KOI8-R", "koi8-r"), ("windows-1251", "cp1251"),
     ("Shift_JIS", "shift_jis"), ("UTF-16", "utf-8"), ("UTF-32", "utf-32"), ("none", "utf-8"),
     ("undefined", "utf-8")],
)  # fmt: skip
def test_a_drawing_may_be_in_any_encoding_that_it_declares(declared, codec):
    assert same(DRAWN.format(declared).encode(codec), DRAWN.format("UTF-8").encode())
