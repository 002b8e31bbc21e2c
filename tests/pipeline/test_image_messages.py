"""What is said of a picture that is not used is true of it."""

import struct

import numpy as np
import pytest
from PIL import Image

from pipeline.images import ImageError, decode
from tests.faults.bad_records import encoded, noise
from tests.pipeline.image_files import bmp


def refused(content):
    with pytest.raises(ImageError) as error:
        decode(content)
    return error.value.reason, str(error.value)


ICON = encoded(noise(size=(16, 16)), "ICO", bitmap_format="bmp", sizes=[(16, 16)])
RUNS = bmp(b"\x28\1\0\0" * 24 + b"\0\1", 40, 24, 8, compression=1, palette=bytes(1024))


@pytest.mark.parametrize(
    "content",
    [
        encoded(noise(), "TIFF", compression="tiff_lzw"),
        encoded(noise(), "TIFF", big_tiff=True),
        ICON,
        RUNS[:2] + struct.pack("<I", len(RUNS)) + RUNS[6:],
        b"P3\n2 2 255\n" + b"1 2 3\n" * 4,
    ],
    ids=["TIFF", "BigTIFF", "ICO", "BMP in runs", "PPM in text"],
)
def test_a_file_that_breaks_off_is_said_to_break_off(content):
    decode(content)
    for share in (0.5, 0.7, 0.9):
        reason, said = refused(content[: int(len(content) * share)])
        assert (reason, "breaks off" in said) == ("decode-truncated", True)


def test_a_bmp_of_an_unread_layout_is_not_said_to_be_damaged():
    colours = np.zeros((4, 4), "<u2").tobytes()
    reason, said = refused(bmp(colours, 4, 4, 16, compression=3, masks=(0xF00, 0xF0, 0xF)))
    assert reason == "decode-unsupported-format"
    assert "bitfields layout" in said


def test_a_float_map_is_named():
    assert refused(b"PF\n2 2\n-1.0\n" + bytes(48))[1].startswith("it is a PFM file")


def test_libtiffs_number_of_an_error_is_not_what_is_said():
    content = encoded(Image.new("RGB", (32, 24)), "TIFF", compression="tiff_adobe_deflate")
    start = content.index(b"\x78\x9c")
    said = refused(content[:start] + b"\xff" * 8 + content[start + 8 :])[1]
    assert "tiff_adobe_deflate" in said
    assert "-2" not in said
