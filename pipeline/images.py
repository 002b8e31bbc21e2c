"""From encoded image to pixels, with limits: source data is hostile.

What every viewer puts right is put right here and named; what no viewer shows, or what would cost
more than a picture may, is an `ImageError` with its reject code. The bytes decide what an image is,
never its file's name.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from pipeline.containers import riff_chunks
from pipeline.image_colours import bits_per_sample, prepare_tiff, to_rgb
from pipeline.image_damage import REPAIRS, mend, png_repairs
from pipeline.image_formats import PluginMissingError, jxl_size, name_of, opener
from pipeline.image_rejects import ImageError as ImageError  # noqa: PLC0414 - callers' name of it
from pipeline.image_rejects import explain, explain_unknown
from pipeline.svg import Drawing, DrawingError, first_element, markup_of, panics_raised

MAX_PIXELS = 100_000_000
"""Ours: a 100-megapixel photograph passes, a decompression bomb does not."""

# What Pillow warns of is checked here, or named among the repairs. Its own limit, at twice the size
# of its warning, stays on.
warnings.filterwarnings("ignore", module=r"PIL\.")
prepare_tiff()

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by EXIF's orientation."""

_UPRIGHT_ALREADY = {"HEIF", "JXL"}
"""Formats whose decoder turns the picture; the EXIF in them does not count."""

_RENDERED = {"PNG", "JPEG", "GIF", "WEBP"}
"""Pillow's names of the pictures that the renderer of drawings decodes."""

_HTML = {"html", "head", "body", "script"}

_NO_ANIMATION = {"TIFF", "MPO", "HEIF"}
"""Formats whose further pictures are pages, views or a series; the decoder opens the main one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an image may be; checked on its header, before it is decoded.

    Attributes:
        max_pixels: width times height.
        min_side: shorter side in pixels.
        max_aspect_ratio: longer side over shorter side.
    """

    max_pixels: int = MAX_PIXELS
    min_side: int = 1
    max_aspect_ratio: float = float("inf")

    def check(self, width: int, height: int) -> None:
        """Raise an ImageError for a size that is not allowed."""
        size = f"{width} x {height}"
        if width * height > self.max_pixels:
            message = f"{size} is more than the {self.max_pixels:,} pixels that are allowed"
            raise ImageError("decode-too-many-pixels", message)
        if min(width, height) < self.min_side:
            message = f"{size}: the shorter side must have at least {self.min_side} pixels"
            raise ImageError("decode-too-small", message)
        if max(width, height) > self.max_aspect_ratio * min(width, height):
            ratio = f"{self.max_aspect_ratio:g}"
            message = f"{size}: the longer side may be at most {ratio} times the shorter"
            raise ImageError("decode-aspect-ratio", message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Pixels and how they came about.

    Attributes:
        image: RGB, upright, transparency laid on white.
        format: as Pillow names it, or `SVG`.
        repairs: what was put right, as every viewer does.
    """

    image: Image.Image
    format: str
    repairs: tuple[str, ...]


PILLOW_MAX_PIXELS = 178_956_970
"""Twice `PIL.Image.MAX_IMAGE_PIXELS`: Pillow opens nothing larger."""

_ANY_ALLOWED = Limits(max_pixels=PILLOW_MAX_PIXELS)
"""What ingest took, under whatever limits, is decoded again."""


def decode(content: bytes) -> Image.Image:
    """The pixels of an image that ingest has taken; see `inspect`.

    Raises:
        ImageError: when the bytes are no image, are damaged, or are too many pixels for Pillow.
    """
    return inspect(content, _ANY_ALLOWED).image


def inspect(content: bytes, limits: Limits) -> Decoded:
    """The first frame as an upright RGB image on white, and what was repaired on the way.

    Raises:
        ImageError: when the bytes are no image, are damaged, or are not within the limits.
    """
    if not content:
        raise ImageError("decode-empty", "the file is empty")
    try:
        if (text := markup_of(content)) is not None:
            return _inspect_markup(text, limits)
    except DrawingError as error:
        raise ImageError(error.reason, str(error)) from error
    name = name_of(content)
    if not name:
        raise explain_unknown(content)
    try:
        form = opener(name)
    except PluginMissingError as error:
        raise ImageError("decode-unsupported-format", str(error)) from error
    try:
        if name == "JPEG XL":
            limits.check(*jxl_size(content))
        decoded = _decode(content, form, limits)
        passed_over = png_repairs(content) if name == "PNG" else ()
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow raises a dozen unrelated types on damage
        return _decode_mended(content, form, limits, error)
    return replace(decoded, repairs=(*decoded.repairs, *passed_over))


def fit_square(image: Image.Image, size: int) -> np.ndarray:
    """The image with its shorter side scaled to `size` and its middle cut out.

    Returns:
        (size, size, 3) uint8, RGB.
    """
    if image.size != (size, size):
        scale = size / min(image.size)
        scaled = (max(size, round(image.width * scale)), max(size, round(image.height * scale)))
        image = image.resize(scaled, Image.Resampling.BICUBIC)
        left, top = (image.width - size) // 2, (image.height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image)


def _inspect_markup(text: str, limits: Limits) -> Decoded:
    """What begins as XML or HTML does: a drawing, or an ImageError."""
    element = first_element(text)
    if element == "svg":
        return _draw(text, limits)
    if element in _HTML or text.lstrip()[:15].lower() == "<!doctype html>":
        raise ImageError("decode-html", "it is an HTML page, not an image")
    what = f"an XML document (<{element}>)" if element else f"text: {text[:60]!r}"
    raise ImageError("decode-not-an-image", f"it is {what}, not an image")


def _draw(text: str, limits: Limits) -> Decoded:
    left = limits.max_pixels

    def embed(content: bytes) -> tuple[str, bytes]:
        """Format and bytes of a picture in the drawing that the renderer may decode."""
        nonlocal left
        try:
            found = inspect(content, Limits(max_pixels=left))
        except ImageError as error:
            raise ImageError(error.reason, f"a picture in the drawing: {error}") from error
        left -= found.image.width * found.image.height
        if found.format in _RENDERED and REPAIRS.isdisjoint(found.repairs):
            return found.format, content
        stream = io.BytesIO()
        found.image.save(stream, "PNG")
        return "PNG", stream.getvalue()

    image = Drawing(text, embed).render()
    limits.check(*image.size)
    return Decoded(image=image, format="SVG", repairs=("svg-rendered",))


def _decode(content: bytes, form: str, limits: Limits, profile: bytes | None = None) -> Decoded:
    """What Pillow makes of an image, upright and as RGB; a profile that is given is the image's."""
    repairs: list[str] = []
    with panics_raised(), Image.open(io.BytesIO(content), formats=(form,)) as opened:
        form = str(opened.format)
        image = _deepest(opened) if form == "ICO" else opened
        limits.check(*image.size)
        orientation = _orientation(image, repairs) if form == "TIFF" else 1  # loading turns a TIFF
        is_animated = form not in _NO_ANIMATION and getattr(image, "is_animated", False)
        if is_animated:
            image.seek(0)
        bits = bits_per_sample(image, content)
        covered = _covered(image, content)
        image.load()
        # A JPEG that was packed into a JPEG XL comes out as it was, to its last byte.
        is_turned = form in _UPRIGHT_ALREADY and not getattr(image, "jpeg", False)
        if form != "TIFF" and not is_turned:
            orientation = _orientation(image, repairs)
        turn = _UPRIGHT.get(orientation)
        if turn is not None:
            repairs.append("exif-rotation")
        if is_animated:
            repairs.append("animated-first-frame")
        elif form == "TIFF" and getattr(image, "n_frames", 1) > 1:
            repairs.append("first-page")
        rgb, colour_repairs = to_rgb(image, bits, profile or image.info.get("icc_profile"))
    if covered is not None and covered != (0, 0, *rgb.size):
        screen = Image.new("RGB", rgb.size, "white")
        screen.paste(rgb.crop(covered), covered)
        rgb = screen
    if turn is not None and form != "TIFF":
        rgb = rgb.transpose(turn)
    return Decoded(image=rgb, format=form, repairs=(*repairs, *colour_repairs))


def _decode_mended(content: bytes, form: str, limits: Limits, error: Exception) -> Decoded:
    """The image without the damage that lies outside its pixels.

    Raises:
        ImageError: when the pixels are damaged too.
    """
    for mended in mend(content, error):
        try:
            decoded = (_decode(each, form, limits, mended.profile) for each in mended.contents)
            first = next(decoded)
            pixels = first.image.tobytes()
            if all(other.image.tobytes() == pixels for other in decoded):
                return replace(first, repairs=(*mended.repairs, *first.repairs))
        except ImageError:
            raise
        except Exception as later:  # noqa: BLE001 - as in `inspect`
            error = later
    raise explain(error, name_of(content), content) from error


def _covered(image: Image.Image, content: bytes) -> tuple[int, int, int, int] | None:
    """The box of the screen that a GIF's or an animation's first frame fills; None for all of it.

    The rest is transparent, as browsers show it; Pillow fills it with the colour of the background.
    """
    if image.format == "GIF":
        return image.tile[0].extents  # type: ignore[attr-defined, no-any-return]
    for kind, frame in riff_chunks(content) if image.format == "WEBP" else ():
        if kind == b"ANMF":
            at = (int.from_bytes(frame[start : start + 3], "little") for start in (0, 3, 6, 9))
            left, top, width, height = at
            return 2 * left, 2 * top, 2 * left + width + 1, 2 * top + height + 1
    return None


def _deepest(icon: Image.Image) -> Image.Image:
    """The drawing with most colours among an icon's largest; Pillow takes the one with fewest."""
    entries = icon.ico.entry  # type: ignore[attr-defined]
    best = max((each for each in entries if each.dim == icon.size), key=lambda e: e.color_depth)
    drawing = icon.ico.frame(entries.index(best))  # type: ignore[attr-defined]
    drawing.format = "ICO"
    return drawing  # type: ignore[no-any-return]


def _orientation(image: Image.Image, repairs: list[str]) -> int:
    """EXIF's orientation, 1 where there is none."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - a dozen unrelated types on damaged EXIF; viewers ignore it
        repairs.append("broken-exif")
        return 1
