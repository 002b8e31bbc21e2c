"""Which picture of a file is taken, and what lies around it."""

import io
import struct
import zlib

import numpy as np
import pillow_jxl  # noqa: F401 - registers itself for writing
import pytest
from PIL import Image

from pipeline.containers import riff_chunks
from pipeline.images import ImageError, Limits, decode, inspect
from tests.faults.bad_records import encoded, noise
from tests.pipeline.image_files import PNG_SIGNATURE, chunk

SIZE = (40, 24)


def jpeg_in_jxl(folder, orientation=1):
    """A JPEG XL that gives a JPEG again to its last byte, and that JPEG."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = folder / "a.jpg"
    noise(size=SIZE).save(path, exif=exif, quality=90)
    stream = io.BytesIO()
    with Image.open(path) as image:
        image.save(stream, "JXL", lossless_jpeg=True)
    return stream.getvalue(), path.read_bytes()


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_jpeg_that_was_packed_into_a_jpeg_xl_is_that_jpeg(tmp_path, orientation):
    content, jpeg = jpeg_in_jxl(tmp_path, orientation)
    assert b"jbrd" in content
    assert decode(content).tobytes() == decode(jpeg).tobytes()
    assert inspect(content, Limits()).repairs == inspect(jpeg, Limits()).repairs


def test_a_jpeg_xl_in_pieces_of_any_length_is_checked_before_it_is_decoded(tmp_path):
    content, _ = jpeg_in_jxl(tmp_path)
    with pytest.raises(ImageError) as error:
        inspect(content, Limits(max_pixels=40 * 24 - 1))
    assert error.value.reason == "decode-too-many-pixels"


def on_a_larger_screen(gif):
    """The same GIF on a screen of 60 x 50, its picture 10 from the left and 20 from the top."""
    at = gif.index(b"," + bytes(4) + struct.pack("<HH", *SIZE))
    frame = gif[:at] + b"," + struct.pack("<HH", 10, 20) + gif[at + 5 :]
    return frame[:6] + struct.pack("<HH", 60, 50) + frame[10:]


def white_around(picture, size=(60, 50), at=(10, 20)):
    screen = Image.new("RGB", size, "white")
    screen.paste(picture, at)
    return screen.tobytes()


@pytest.mark.parametrize("frames", [1, 2])
def test_what_the_first_frame_of_a_gif_leaves_free_is_white(frames):
    others = [Image.new("P", SIZE)] * (frames - 1)
    gif = encoded(noise(size=SIZE).quantize(16), "GIF", save_all=True, append_images=others)
    found = decode(on_a_larger_screen(gif))
    assert found.tobytes() == white_around(decode(gif))


def test_what_the_first_frame_of_an_animated_webp_leaves_free_is_white():
    frames = [noise(size=SIZE), Image.new("RGB", SIZE, "red")]
    webp = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    chunks = []
    for kind, payload in riff_chunks(webp):
        data = bytearray(payload)
        if kind == b"VP8X":
            data[4:10] = b"".join((side - 1).to_bytes(3, "little") for side in (60, 50))
        elif kind == b"ANMF":
            data[:6] = b"".join((at // 2).to_bytes(3, "little") for at in (10, 20))
        chunks.append(kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2))
    body = b"WEBP" + b"".join(chunks)
    found = decode(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert found.tobytes() == white_around(frames[0])


@pytest.mark.parametrize("bitmap_format", ["png", "bmp"])
def test_an_icon_gives_its_largest_drawing_with_most_colours(bitmap_format):
    full = noise(size=(16, 16)).convert("RGBA")
    icon = encoded(
        full, "ICO", bitmap_format=bitmap_format, sizes=[(16, 16)],
        append_images=[full.convert("RGB").quantize(4), full.convert("1")],
    )  # fmt: skip
    few = encoded(full.convert("1"), "ICO", bitmap_format="bmp", sizes=[(16, 16)])
    assert decode(joined_icons(few, icon)).tobytes() == full.convert("RGB").tobytes()


def joined_icons(*icons):
    """One icon with the first drawing of each."""
    entries, drawings, at = [], [], 6 + 16 * len(icons)
    for icon in icons:
        size, start = struct.unpack("<II", icon[14:22])
        entries.append(icon[6:14] + struct.pack("<II", size, at))
        drawings.append(icon[start : start + size])
        at += size
    return struct.pack("<HHH", 0, 1, len(icons)) + b"".join(entries + drawings)


def test_an_icon_whose_alpha_is_unused_shows_its_colours():
    full = noise(size=(16, 16)).convert("RGBA")
    full.putalpha(0)
    icon = encoded(full, "ICO", bitmap_format="bmp", sizes=[(16, 16)])
    assert decode(icon).tobytes() == full.convert("RGB").tobytes()


def stored_png(damage=None, checksum=None):
    """A PNG whose pixels are not compressed, so that damage to one breaks no code.

    More data than pixels follow: a decoder has them all before it comes to the data's checksum.
    """
    pixels = np.asarray(noise(size=SIZE))
    rows = b"".join(b"\0" + row.tobytes() for row in pixels) + bytes(60_000)
    data = bytearray(zlib.compress(rows, 0))
    if damage is not None:
        data[damage] ^= 0xFF
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *SIZE, 8, 2, 0, 0, 0))
    right = zlib.crc32(b"IDAT" + zlib.compress(rows, 0))
    piece = chunk(b"IDAT", bytes(data), right if checksum is None else checksum)
    return PNG_SIGNATURE + header + piece + chunk(b"IEND", b"")


@pytest.mark.parametrize("at", [200, 1000, 2000])
def test_a_png_whose_pixels_were_changed_is_not_taken(at):
    with pytest.raises(ImageError) as error:
        decode(stored_png(damage=at))
    assert error.value.reason == "decode-failed"
    assert "checksum" in str(error.value)


def test_a_png_whose_pixels_are_whole_is_taken_with_a_wrong_checksum_of_their_chunk():
    found = inspect(stored_png(checksum=7), Limits())
    assert found.repairs == ("wrong-checksum",)
    assert found.image.tobytes() == noise(size=SIZE).tobytes()
