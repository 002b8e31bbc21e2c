"""What the samples of a picture mean: from Pillow's mode to RGB on white.

Bit depth, photometric interpretation, transparency and colour profile are honoured as a second
decoder honours them: `tests/DECODERS.md` compares.
"""

from __future__ import annotations

import io
from functools import lru_cache
from threading import Lock

import numpy as np
from PIL import Image, ImageChops, ImageCms, TiffImagePlugin

from pipeline.image_rejects import ImageError

_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR_CONFIGURATION, _EXTRA_SAMPLES = 258, 262, 284, 338

_UNUSED_ALPHA = {"BMP", "DIB", "ICO", "TGA"}
"""Many writers leave the fourth byte at zero; viewers then show the colours, not nothing."""


class Tiff(TiffImagePlugin.TiffImageFile):
    """A TIFF whose samples come as the file means them.

    Pillow's own reader of uncompressed TIFFs takes separate planes of 16 bits for 8, WhiteIsZero in
    a plane for its opposite, and refuses YCbCr in planes; libtiff, which reads the compressed ones,
    does not. Grey of 16 bits with alpha comes as the four bytes of a pixel, in the machine's order.
    """

    _lock = Lock()

    def _setup(self) -> None:
        tags = self.tag_v2
        with self._lock:  # the switch is one for all files
            TiffImagePlugin.READ_LIBTIFF = (
                tags.get(_PLANAR_CONFIGURATION) == 2
                or tags.get(_PHOTOMETRIC) == 6
                or tags.get(_BITS_PER_SAMPLE) == (16, 16)
            )
            super()._setup()


def prepare_tiff() -> None:
    """Let Pillow open TIFFs as `Tiff`, and the kinds of grey that its table lacks."""
    for order, deep in ((b"II", "I;16"), (b"MM", "I;16B")):
        for photometric in (0, 1):
            kinds = {
                ((12,), ()): ("I;16", "I;12"),
                ((16,), ()): (deep, deep),
                ((8, 8), (0,)): ("L", "LX"),
                ((8, 8), (1,)): ("La", "La"),
                ((8, 8), (2,)): ("LA", "LA"),
            } | {((16, 16), (extra,)): ("RGBA", "RGBA") for extra in (0, 1, 2)}
            for (bits, extras), modes in kinds.items():
                key = (order, photometric, (1,), 1, bits, extras)
                TiffImagePlugin.OPEN_INFO.setdefault(key, modes)
    _, accept = Image.OPEN[Tiff.format]
    Image.register_open(Tiff.format, Tiff, accept)


def bits_per_sample(image: Image.Image, content: bytes) -> int:
    """How many bits a sample has in the file, 8 where only Pillow's mode tells."""
    if image.format == "PNG":
        return content[24]  # the bit depth in IHDR, which is always first
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))))  # type: ignore[attr-defined]
    # Pillow gives a PGM of more than 8 bits as 32 bits, scaled to 16.
    is_deep_pgm = image.format == "PPM" and image.mode == "I"
    return 16 if is_deep_pgm or image.mode.startswith("I;16") else 8


def to_rgb(image: Image.Image, bits: int, profile: bytes | None) -> tuple[Image.Image, list[str]]:
    """A loaded image as RGB, in sRGB and on white, and the repairs that this took.

    Args:
        image: as Pillow has loaded it.
        bits: of a sample, as `bits_per_sample` gives them before the image is loaded.
        profile: the colour profile, if there is one.

    Raises:
        ImageError: when the samples are measurements.
    """
    repairs = ["16-bit"] if bits > 8 else []
    if image.mode in {"P", "PA"}:
        repairs.append("palette")
    if image.mode == "CMYK":
        repairs.append("cmyk")
    srgb = _to_srgb(_to_colour(image, bits), profile, repairs)
    return _flatten(srgb, str(image.format), repairs), repairs


def _to_colour(image: Image.Image, bits: int) -> Image.Image:
    """RGB, RGBA or CMYK, whichever the image's mode holds."""
    if image.format == "TIFF":
        image = _grey_of_tiff(image, bits)
    if "transparency" not in image.info and image.mode in {"RGB", "RGBA", "CMYK"}:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return _from_deep_grey(image, bits)
    if image.mode in {"I", "F"}:
        kind = "floating-point" if image.mode == "F" else "signed or 32-bit"
        message = (
            f"its samples are {kind} numbers: measurements; save it with 8 or 16 bits a sample"
        )
        raise ImageError("decode-unsupported-mode", message)
    if image.format == "PNG" and bits not in {1, 8}:
        _scale_transparency(image, bits)
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _grey_of_tiff(image: Image.Image, bits: int) -> Image.Image:
    """Grey with alpha, and grey of more than 8 bits, with black as zero; others as they are."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    num_samples = len(tags.get(_BITS_PER_SAMPLE, (1,)))
    is_inverted = tags.get(_PHOTOMETRIC, 0) == 0  # where there is none, as Pillow has it
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        return Image.fromarray((1 << bits) - 1 - values) if is_inverted else image
    if num_samples != 2 or image.mode not in {"L", "La", "LA", "RGBA"}:
        return image
    if image.mode == "RGBA":  # each pixel's bytes are two samples of 16 bits
        samples = (np.asarray(image).view(np.uint16) >> 8).astype(np.uint8)
        mode = "La" if tags[_EXTRA_SAMPLES][0] == 1 else "LA"
        image = Image.frombytes(mode, image.size, samples.tobytes())
        if tags[_EXTRA_SAMPLES][0] == 0:  # it is not said to be an alpha
            image = image.getchannel(0)
    if image.mode == "La":
        image = image.convert("LA")
    if is_inverted:
        grey, *alpha = image.split()
        inverted = ImageChops.invert(grey)
        return Image.merge("LA", (inverted, *alpha)) if alpha else inverted
    return image


def _from_deep_grey(image: Image.Image, bits: int) -> Image.Image:
    """The high bits, as libpng gives them; `convert` would cut everything above 255 off."""
    values = np.asarray(image)
    grey = Image.fromarray((values >> (bits - 8)).astype(np.uint8))
    if image.format == "PNG" and "transparency" in image.info:
        alpha = Image.fromarray(np.uint8(255) * (values != image.info["transparency"]))
        return Image.merge("LA", (grey, alpha)).convert("RGBA")
    return grey.convert("RGB")


def _scale_transparency(image: Image.Image, bits: int) -> None:
    """A PNG's transparent grey or colour on the 8-bit scale that Pillow has its pixels on."""
    colour = image.info.get("transparency")
    if image.mode == "L" and isinstance(colour, int):
        image.info["transparency"] = colour * 255 // ((1 << bits) - 1)
    elif image.mode == "RGB" and isinstance(colour, tuple):
        image.info["transparency"] = tuple(value >> (bits - 8) for value in colour)


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


def _flatten(image: Image.Image, form: str, repairs: list[str]) -> Image.Image:
    """The image on white."""
    if image.mode == "RGB":
        return image.copy()
    least, most = image.getchannel("A").getextrema()
    if most == 0 and form in _UNUSED_ALPHA:
        return image.convert("RGB")
    if least != 255:
        repairs.append("alpha")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
