"""Every kind of bad picture: how it is made, and what becomes of it."""

import base64
import gzip
import struct
import zlib

from PIL import Image

from tests.faults.bad_records import Bad, encoded, noise
from tests.pipeline.image_files import PNG_SIGNATURE, chunk, png, ramp, tiff

_OTHER_FRAMES = [Image.new("RGB", (32, 24), "red"), Image.new("RGB", (32, 24), "lime")]
_LONG = zlib.compress(b"a" * (2 << 20))


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a picture of noise"
    return exif


def _cut(form: str, share: float = 0.67, **options: object) -> bytes:
    content = encoded(noise(), form, **options)
    return content[: int(len(content) * share)]


def _bomb() -> bytes:
    content = encoded(noise())
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return PNG_SIGNATURE + chunk(b"IHDR", header) + content[33:]


def _with_chunk(kind: bytes, payload: bytes, checksum: int | None = None) -> bytes:
    content = encoded(noise())
    return content[:33] + chunk(kind, payload, checksum) + content[33:]


def _wrong_adler() -> bytes:
    content = encoded(noise())
    size = struct.unpack(">I", content[33:37])[0]
    data = content[41 : 41 + size]
    return content[:33] + chunk(b"IDAT", data[:-4] + b"\1\2\3\4") + chunk(b"IEND", b"")


def _flipped(at: int) -> bytes:
    content = bytearray(encoded(noise()))
    content[at] ^= 0xFF
    return bytes(content)


def _before_last_scan() -> bytes:
    content = encoded(noise(), "JPEG", progressive=True)
    return content[: content.rindex(b"\xff\xda")]


def _before_last_restart() -> bytes:
    content = encoded(noise(size=(64, 64)), "JPEG", restart_marker_rows=1)
    return content[: max(content.rfind(bytes([0xFF, 0xD0 + number])) for number in range(8))]


def _broken_profile_segment() -> bytes:
    content = encoded(noise(), "JPEG")
    return content[:2] + b"\xff\xe2\x00\x0eICC_PROFILE\0" + content[2:]


def _wrong_size(form: str) -> bytes:
    content = encoded(noise(), form)
    return content[:4] + struct.pack("<I", len(content) * 2) + content[8:]


def _animation(form: str, **options: object) -> bytes:
    return encoded(noise(), form, save_all=True, append_images=_OTHER_FRAMES, **options)


def _broken_exif(form: str) -> bytes:
    content = encoded(noise(), form, exif=_exif())
    return content.replace(b"MM\0*", b"NN\0*", 1)


def svg(inside: str) -> bytes:
    head = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'{head} viewBox="0 0 20 10">{inside}</svg>'.encode()


def svg_with(content: bytes, kind: str = "image/png") -> bytes:
    data = base64.b64encode(content).decode()
    return svg(f'<image width="20" height="10" xlink:href="data:{kind};base64,{data}"/>')


RECTANGLE = svg('<rect width="9" height="9"/>')

PICTURES = [
    Bad(name="zero bytes", make=lambda: b"", reason="decode-empty"),
    Bad(name="truncated JPEG", make=lambda: _cut("JPEG"), reason="decode-truncated"),
    Bad(name="JPEG that lacks its last scan", make=_before_last_scan, reason="decode-truncated"),
    Bad(name="JPEG that lacks its last rows", make=_before_last_restart,
        reason="decode-truncated"),
    Bad(name="truncated PNG", make=lambda: _cut("PNG"), reason="decode-truncated"),
    Bad(name="truncated WebP", make=lambda: _cut("WEBP"), reason="decode-truncated"),
    Bad(name="truncated GIF", make=lambda: _cut("GIF"), reason="decode-truncated"),
    Bad(name="JPEG that ends in its header", make=lambda: _cut("JPEG", 0.3),
        reason="decode-truncated"),
    Bad(name="truncated JPEG 2000", make=lambda: _cut("JPEG2000"), reason="decode-truncated"),
    Bad(name="truncated BMP", make=lambda: _cut("BMP"), reason="decode-truncated"),
    Bad(name="truncated TIFF", make=lambda: _cut("TIFF"), reason="decode-truncated"),
    Bad(name="truncated AVIF", make=lambda: _cut("AVIF"), reason="decode-truncated"),
    Bad(name="bit-flipped PNG", make=lambda: _flipped(60), reason="decode-failed"),
    Bad(name="PNG with a damaged header", make=lambda: _flipped(30), reason="decode-failed"),
    Bad(name="damaged header", make=lambda: b"GIF8" + bytes(40), reason="decode-failed"),
    Bad(name="damaged HEIC", make=lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99),
        reason="decode-failed"),
    Bad(name="damaged JPEG XL", make=lambda: b"\xff\x0a" + b"\1" * 99, reason="decode-failed"),
    Bad(name="12-bit JPEG", make=lambda: encoded(noise(), "JPEG").replace(
        b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), reason="decode-unsupported-format"),
    Bad(name="Photoshop", make=lambda: b"8BPS\0\1" + bytes(40), reason="decode-unsupported-format"),
    Bad(name="HTML instead of an image", make=lambda: b"\n<!DOCTYPE html><html>404</html>",
        reason="decode-html"),
    Bad(name="HTML in UTF-16", make=lambda: "<html>404</html>".encode("utf-16"),
        reason="decode-html"),
    Bad(name="JSON instead of an image", make=lambda: b'{"error": 403}',
        reason="decode-not-an-image"),
    Bad(name="XML instead of an image", make=lambda: b"<?xml version='1.0'?><Error>no</Error>",
        reason="decode-not-an-image"),
    Bad(name="text instead of an image", make=lambda: b"BM is no signature of a text",
        reason="decode-not-an-image"),
    Bad(name="WAV instead of an image", make=lambda: b"RIFF\0\0\0\0WAVEfmt " + bytes(30),
        reason="decode-not-an-image"),
    Bad(name="film instead of an image", make=lambda: b"\0\0\0\x18ftypisom" + bytes(90),
        reason="decode-not-an-image"),
    Bad(name="PDF instead of an image", make=lambda: b"%PDF-1.7\n...",
        reason="decode-not-an-image"),
    Bad(name="gzip of no drawing", make=lambda: gzip.compress(b"a,b\n1,2"),
        reason="decode-not-an-image"),
    Bad(name="decompression bomb", make=_bomb, reason="decode-too-many-pixels"),
    Bad(name="1x1", make=lambda: encoded(noise(size=(1, 1))), reason="decode-too-small"),
    Bad(name="30,000x10", make=lambda: encoded(Image.new("1", (30_000, 10))),
        reason="decode-aspect-ratio"),
    Bad(name="32-bit floats", make=lambda: encoded(noise("F"), "TIFF"),
        reason="decode-unsupported-mode"),
    Bad(name="32-bit floats in RGB", make=lambda: tiff(
        ramp(3, 255), photometric=2, bits=32, numbers="f"), reason="decode-unsupported-mode"),
    Bad(name="SVG with a picture from a file", make=lambda: svg('<image href="/etc/x.png"/>'),
        reason="decode-svg-external-reference"),
    Bad(name="SVG with a style from the network",
        make=lambda: svg("<style>@import 'https://example.org/a.css';</style>"),
        reason="decode-svg-external-reference"),
    Bad(name="SVG with a drawing inside", make=lambda: svg_with(RECTANGLE, "image/svg+xml"),
        reason="decode-svg-external-reference"),
    Bad(name="SVG with a drawing inside, as text", make=lambda: svg_with(RECTANGLE, "text/plain"),
        reason="decode-svg-external-reference"),
    Bad(name="SVG with a compressed drawing inside", make=lambda: svg_with(
        gzip.compress(RECTANGLE), ""), reason="decode-svg-external-reference"),
    Bad(name="SVG with a picture bomb", make=lambda: svg_with(_bomb()),
        reason="decode-too-many-pixels"),
    Bad(name="SVG with a truncated picture", make=lambda: svg_with(_cut("PNG")),
        reason="decode-truncated"),
    Bad(name="broken SVG", make=lambda: svg("<g>"), reason="decode-svg-damaged"),
    Bad(name="SVG of an unknown encoding", make=lambda: svg("<text>caf\xe9</text>").decode(
        ).encode("latin-1"), reason="decode-svg-damaged"),
    Bad(name="SVG nested too deeply", make=lambda: svg("<g>" * 300 + "</g>" * 300),
        reason="decode-svg-damaged"),
    Bad(name="SVG whose parts use each other too deeply", make=lambda: svg("".join(
        f'<g id="g{number + 1}"><use href="#g{number}"/></g>' for number in range(200))),
        reason="decode-svg-damaged"),
    Bad(name="SVG bomb of gzip", make=lambda: gzip.compress(svg(" " * (20 << 20))),
        reason="decode-svg-damaged"),
    Bad(name="truncated SVG of gzip", make=lambda: gzip.compress(RECTANGLE)[:-9],
        reason="decode-svg-damaged"),
    Bad(name="animated GIF", make=lambda: _animation("GIF"),
        repairs=("animated-first-frame", "palette")),
    Bad(name="animated GIF, cut short", make=lambda: _animation("GIF")[:-100],
        repairs=("animated-first-frame", "palette")),
    Bad(name="animated PNG", make=lambda: _animation("PNG"), repairs=("animated-first-frame",)),
    Bad(name="animated WebP, cut short", make=lambda: _animation("WEBP", lossless=True)[:-20],
        repairs=("broken-container", "animated-first-frame")),
    Bad(name="CMYK", make=lambda: encoded(noise("CMYK"), "JPEG"), repairs=("cmyk",)),
    Bad(name="16-bit", make=lambda: png(ramp(1, 65_535), bits=16, colour=0), repairs=("16-bit",)),
    Bad(name="palette with alpha", make=lambda: encoded(noise().quantize(8), transparency=0),
        repairs=("palette", "alpha")),
    Bad(name="alpha", make=lambda: encoded(Image.new("RGBA", (8, 8))), repairs=("alpha",)),
    Bad(name="EXIF rotation", make=lambda: encoded(noise(), "JPEG", exif=_exif()),
        repairs=("exif-rotation",)),
    Bad(name="broken ICC", make=lambda: encoded(noise(), icc_profile=b"no profile" * 20),
        repairs=("broken-icc",)),
    Bad(name="broken ICC segment in a JPEG", make=_broken_profile_segment,
        repairs=("broken-metadata",)),
    Bad(name="broken EXIF in an AVIF", make=lambda: _broken_exif("AVIF"),
        repairs=("broken-metadata", "exif-rotation")),
    Bad(name="broken EXIF in a WebP", make=lambda: _broken_exif("WEBP"), repairs=("broken-exif",)),
    Bad(name="long text in a PNG", make=lambda: _with_chunk(b"zTXt", b"comment\0\0" + _LONG),
        repairs=("long-metadata",)),
    Bad(name="long profile in a PNG", make=lambda: _with_chunk(b"iCCP", b"a\0\0" + _LONG),
        repairs=("long-metadata", "broken-icc")),
    Bad(name="PNG with a wrong checksum of a text", make=lambda: _with_chunk(b"tEXt", b"a\0b", 1),
        repairs=("broken-metadata",)),
    Bad(name="PNG with a chunk that breaks off", make=lambda: _with_chunk(b"pHYs", b"\0"),
        repairs=("broken-metadata",)),
    Bad(name="PNG with a wrong checksum of its data", make=_wrong_adler,
        repairs=("wrong-checksum",)),
    Bad(name="PNG without its end", make=lambda: encoded(noise())[:-12], repairs=("without-end",)),
    Bad(name="JPEG without its end", make=lambda: encoded(noise(), "JPEG")[:-2],
        repairs=("without-end",)),
    Bad(name="JPEG 2000 without its end", make=lambda: encoded(noise(), "JPEG2000")[:-2],
        repairs=("without-end",)),
    Bad(name="JPEG one byte short", make=lambda: encoded(noise(), "JPEG", progressive=True)[:-1],
        repairs=("without-end",)),
    Bad(name="BMP that lacks the last row's padding", make=lambda: encoded(
        noise(size=(31, 24)), "BMP")[:-3]),
    Bad(name="GIF without its end", make=lambda: encoded(noise(), "GIF")[:-1],
        repairs=("palette",)),
    Bad(name="WebP with a wrong size", make=lambda: _wrong_size("WEBP"),
        repairs=("broken-container",)),
    Bad(name="TIFF whose second page is damaged",
        make=lambda: tiff(ramp(3, 255), photometric=2, bits=8, next_page=9),
        repairs=("first-page", "broken-container")),
    Bad(name="SVG", make=lambda: RECTANGLE, repairs=("svg-rendered",)),
    Bad(name="SVG of gzip", make=lambda: gzip.compress(RECTANGLE), repairs=("svg-rendered",)),
    Bad(name="SVG in UTF-16", make=lambda: RECTANGLE.decode().encode("utf-16"),
        repairs=("svg-rendered",)),
    Bad(name="SVG with a picture inside", make=lambda: svg_with(encoded(noise(), "BMP"), ""),
        repairs=("svg-rendered",)),
]  # fmt: skip
