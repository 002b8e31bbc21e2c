"""From encoded image to pixels, with limits: source data is hostile.

What every viewer puts right is put right here and named; what no viewer shows, or what would cost
more than a picture may, is an `ImageError` with its reject code. The bytes decide what an image is,
never its file's name.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from pipeline.errors import RejectError
from pipeline.svg import Drawing, ExternalReferenceError, first_element

MAX_PIXELS = 100_000_000
"""Ours: a 100-megapixel photograph passes, a decompression bomb does not."""

# Our own limit is checked before anything is decoded; Pillow's at twice this size stays on.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")
"""What is decoded (JPEG brings MPO); Pillow's other decoders stay shut: EPS runs a program."""

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258

_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
}
_UNSUPPORTED = {
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"8BPS": "Photoshop",
    b"\x00\x00\x01\x00": "ICO",
}
_OTHERS = {
    b"%PDF": "PDF",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "ZIP",
    b"version https://git-lfs": "Git LFS pointer",
    b"{": "JSON",
}


class ImageError(RejectError):
    """An image that will not be used."""


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
            message = f"{size} is more than {self.max_pixels} pixels"
            raise ImageError("decode-too-many-pixels", message)
        if min(width, height) < self.min_side:
            message = f"{size}: the shorter side must have {self.min_side} pixels"
            raise ImageError("decode-too-small", message)
        if max(width, height) > self.max_aspect_ratio * min(width, height):
            message = f"{size}: the longer side may be {self.max_aspect_ratio:g} times the shorter"
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
        raise ImageError("decode-empty", "there are no bytes")
    element = first_element(content)
    if element == "svg":
        return _draw(content, limits)
    if (
        element in {"html", "head", "body", "script"}
        or content.lstrip()[:15].lower() == b"<!doctype html>"
    ):
        raise ImageError("decode-html", "it is an HTML page, not an image")
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            limits.check(*image.size)
            return _repair(image, content)
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen unrelated types on damaged bytes.
        raise _explain(error, content) from error


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


def _draw(content: bytes, limits: Limits) -> Decoded:
    try:
        image = Drawing(content).render()
    except ExternalReferenceError as error:
        raise ImageError("decode-svg-external-reference", str(error)) from error
    except Exception as error:  # two parsers' and a renderer's own types
        raise ImageError("decode-svg-damaged", f"{type(error).__name__}: {error}") from error
    limits.check(*image.size)
    return Decoded(image=image, format="SVG", repairs=("svg-rendered",))


def _repair(image: Image.Image, content: bytes) -> Decoded:
    """The loaded image, made upright and RGB."""
    form, mode = str(image.format), image.mode
    repairs: list[str] = []
    orientation = _orientation(image, repairs) if form == "TIFF" else 0  # loading turns a TIFF
    is_animated = form not in {"TIFF", "MPO"} and getattr(image, "is_animated", False)
    if is_animated:
        image.seek(0)
    is_deep = _is_16_bit(image, content)
    image.load()
    upright: Image.Image = image
    if not orientation:
        orientation = _orientation(image, repairs)
        if orientation in range(2, 9):
            upright = ImageOps.exif_transpose(image)
    if orientation in range(2, 9):
        repairs.append("exif-rotation")
    if is_animated:
        repairs.append("animated-first-frame")
    elif form == "TIFF" and getattr(image, "n_frames", 1) > 1:
        repairs.append("first-page")
    if is_deep:
        repairs.append("16-bit")
    if mode in {"P", "PA"}:
        repairs.append("palette")
    if mode == "CMYK":
        repairs.append("cmyk")
    rgb = _flatten(_to_srgb(_to_colour(upright), image.info.get("icc_profile"), repairs), repairs)
    return Decoded(image=rgb, format=form, repairs=tuple(repairs))


def _orientation(image: Image.Image, repairs: list[str]) -> int:
    """EXIF's orientation, 1 where there is none."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - a dozen unrelated types on damaged EXIF; viewers ignore it
        repairs.append("broken-exif")
        return 1


def _is_16_bit(image: Image.Image, content: bytes) -> bool:
    if image.format == "PNG":
        return content[24] == 16  # the bit depth in IHDR, which is always first
    if image.format == "TIFF":
        return 16 in image.tag_v2.get(_BITS_PER_SAMPLE, ())  # type: ignore[attr-defined]
    return image.mode.startswith("I;16")


def _to_colour(image: Image.Image) -> Image.Image:
    """RGB, RGBA or CMYK, whichever the image's mode holds."""
    if image.mode in {"RGB", "RGBA", "CMYK"} and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        # The high byte, as libpng gives it; `convert` would cut everything above 255 off.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in {"I", "F"}:
        message = f"32-bit samples (mode {image.mode}) are measurements, not a picture"
        raise ImageError("decode-unsupported-mode", message)
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _to_srgb(image: Image.Image, profile: bytes | None, repairs: list[str]) -> Image.Image:
    """The colours as sRGB; a profile that is damaged or for other colours is ignored."""
    if profile:
        try:
            transform = _colour_transform(profile, image.mode)
            if transform is not None:
                image = ImageCms.applyTransform(image, transform) or image
                repairs.append("icc-profile")
        except (OSError, ValueError, ImageCms.PyCMSError):
            repairs.append("broken-icc")
    return image.convert("RGB") if image.mode == "CMYK" else image


@lru_cache(maxsize=32)
def _colour_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB; None where the picture already is, or is grey.

    Raises:
        OSError, ValueError, ImageCms.PyCMSError: when the profile is damaged or of other colours.
    """
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = opened.profile.xcolor_space.strip()
    if space == "GRAY" or (opened.profile.profile_description or "").startswith("sRGB"):
        return None
    if space != ("CMYK" if mode == "CMYK" else "RGB"):
        message = f"a profile for {space} on a picture in {mode}"
        raise ValueError(message)
    output = "RGB" if mode == "CMYK" else mode
    return ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, output)


def _flatten(image: Image.Image, repairs: list[str]) -> Image.Image:
    """The image on white."""
    if image.mode == "RGB":
        return image.copy()
    least, _ = image.getchannel("A").getextrema()
    if least != 255:
        repairs.append("alpha")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _explain(error: Exception, content: bytes) -> ImageError:
    """The reject for bytes that Pillow could not decode."""
    detail = f"{type(error).__name__}: {error}"
    if isinstance(error, Image.DecompressionBombError):
        return ImageError("decode-too-many-pixels", str(error))
    if "Decompressed data too large" in str(error):
        return ImageError("decode-metadata-bomb", f"its text or colour profile unpacks to: {error}")
    if "truncated" in str(error).lower() or _is_cut_short(content):
        return ImageError("decode-truncated", f"its {len(content)} bytes end too early: {error}")
    if not isinstance(error, UnidentifiedImageError):
        return ImageError("decode-failed", detail)
    return _name_unknown(content)


def _name_unknown(content: bytes) -> ImageError:
    """The reject for bytes that Pillow does not know."""
    name = _name_of(content, _UNSUPPORTED) or _media_brand(content)
    if name:
        return ImageError("decode-unsupported-format", f"it is a {name} file")
    name = _name_of(content, _SIGNATURES)
    if name:
        return ImageError("decode-failed", f"it begins as a {name} file, but its header is damaged")
    name = _name_of(content, _OTHERS)
    found = f"it is a {name} file" if name else f"it begins with {content[:16]!r}"
    return ImageError("decode-not-an-image", found)


def _name_of(content: bytes, signatures: dict[bytes, str]) -> str:
    names = (name for begin, name in signatures.items() if content.startswith(begin))
    return next(names, "")


def _media_brand(content: bytes) -> str:
    """The brand of an ISO media file such as HEIC or MP4."""
    return content[8:12].decode("ascii", "replace").strip() if content[4:8] == b"ftyp" else ""


def _is_cut_short(content: bytes) -> bool:
    """Whether the lengths that WebP and AVIF files declare reach beyond the bytes."""
    if content[:4] == b"RIFF":
        return int.from_bytes(content[4:8], "little") + 8 > len(content)
    position = 0
    if content[4:8] == b"ftyp":
        while position + 8 <= len(content):
            size = int.from_bytes(content[position : position + 4], "big")
            if size < 8:  # 0 is "to the end of the file", 1 a 64-bit length
                return False
            position += size
    return position > len(content)
