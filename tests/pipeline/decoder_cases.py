"""Files of every kind of sample, and what the samples mean out of 255."""

import struct
from dataclasses import dataclass
from itertools import product

import numpy as np
import pillow_heif
import pillow_jxl  # noqa: F401 - registers itself for writing
import pyvips
from PIL import Image

from tests.faults.bad_records import encoded
from tests.pipeline.image_files import bmp, chunk, packed, png, ramp, swapped_profile, tga, tiff

pillow_heif.register_heif_opener()

NO_ALPHA = "an extra sample of no stated meaning is no alpha; libvips takes it for one"
AS_STORED = "libvips shows Y, Cb and Cr as if they were RGB"
DIVIDED = "we divide by an alpha of 8 bits, libvips by one of 16; seen where it is near 0"
INVERTED_FIRST = "libvips inverts before it divides by the alpha"
UPSCALED = "another filter scales the chroma up"
COARSE = "8 bits of L*a*b* are coarse in dark blue"
LOSSY = "the format does not keep the samples"


@dataclass(frozen=True, kw_only=True)
class Case:
    """Files that hold the same picture, or refuse for the same reason.

    `samples` are what was written, as (h, w, 3) out of 255; `why` excuses the differences.
    """

    name: str
    files: tuple[bytes, ...]
    samples: np.ndarray | None = None
    why: str = ""


def case(name: str, *files: bytes, samples: np.ndarray | None = None, why: str = "") -> Case:
    return Case(name=name, files=files, samples=samples, why=why)


def eight_bits(samples: np.ndarray, bits: int) -> np.ndarray:
    """Samples out of 255; of deep ones the high bits, as libpng gives them."""
    samples = samples.astype(int)
    return samples >> (bits - 8) if bits > 8 else samples * 255 // ((1 << bits) - 1)


def rgb(samples: np.ndarray, bits: int = 8) -> np.ndarray:
    """Grey or RGB as RGB."""
    return np.broadcast_to(eight_bits(samples, bits).astype(float), (*samples.shape[:2], 3))


def on_white(samples: np.ndarray, bits: int = 8) -> np.ndarray:
    """Grey or RGB with a last channel of alpha, as RGB."""
    colours, alpha = rgb(samples[..., :-1], bits), rgb(samples[..., -1:], bits) / 255
    return colours * alpha + 255 * (1 - alpha)


def from_cmyk(samples: np.ndarray, bits: int = 8) -> np.ndarray:
    """CMYK as RGB, without a profile."""
    inks = eight_bits(samples, bits).astype(float)
    return (255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255


def from_ycbcr(samples: np.ndarray) -> np.ndarray:
    """YCbCr as RGB (ITU-R BT.601, as in JFIF)."""
    y, blue, red = np.moveaxis(samples.astype(float), -1, 0)
    blue, red = blue - 128, red - 128
    planes = y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue
    return np.clip(np.stack(planes, -1), 0, 255)


def tiffs(samples: np.ndarray, **options: object) -> tuple[bytes, ...]:
    """In both byte orders, together and in planes, in strips and tiles, plain and deflated."""
    has_whole_bytes = options["bits"] in (8, 16)
    planes, tiles = ((1, 2), (None, 16)) if has_whole_bytes else ((1,), (None,))
    return tuple(
        tiff(samples, order=order, planar=planar, tile=tile, compression=compression, **options)
        for order, planar, tile, compression in product("<>", planes, tiles, (1, 8))
    )


def tiff_grey() -> list[Case]:
    cases = []
    for bits in (1, 2, 4, 8, 12, 16):
        grey = ramp(1, (1 << bits) - 1)
        inverted = (1 << bits) - 1 - grey
        black, white = (tiffs(grey, photometric=which, bits=bits) for which in (1, 0))
        cases += [
            case(f"TIFF BlackIsZero {bits}-bit", *black, samples=rgb(grey, bits)),
            case(f"TIFF WhiteIsZero {bits}-bit", *white, samples=rgb(inverted, bits)),
        ]
    return cases


def tiff_alpha() -> list[Case]:
    cases = []
    kinds = ((1, 1, "BlackIsZero"), (1, 0, "WhiteIsZero"), (3, 2, "RGB"))
    for bits, (channels, photometric, name) in product((8, 16), kinds):
        largest = (1 << bits) - 1
        samples = ramp(channels + 1, largest)
        alpha = samples[..., -1:]
        multiplied = np.concatenate([samples[..., :-1] * alpha // largest, alpha], -1)
        meant = samples if photometric else np.concatenate([largest - samples[..., :1], alpha], -1)
        for extra, stored, kind, seen, why in (
            (0, samples, "an extra sample", rgb(meant[..., :-1], bits), NO_ALPHA),
            (1, multiplied, "associated alpha", None, DIVIDED if photometric else INVERTED_FIRST),
            (2, samples, "alpha", on_white(meant, bits), ""),
        ):
            planes = (1, 2) if channels == 3 else (1,)
            options = {"photometric": photometric, "bits": bits, "extra": (extra,)}
            files = (
                tiff(stored, order=order, planar=planar, compression=compression, **options)
                for order, planar, compression in product("<>", planes, (1, 8))
            )
            cases.append(case(f"TIFF {name} {bits}-bit, {kind}", *files, samples=seen, why=why))
    return cases


def tiff_colour() -> list[Case]:
    cases = []
    for bits in (8, 16):
        colours, inks = ramp(3, (1 << bits) - 1), ramp(4, (1 << bits) - 1)
        in_rgb, in_cmyk = (
            tiffs(samples, photometric=which, bits=bits)
            for which, samples in ((2, colours), (5, inks))
        )
        cases += [
            case(f"TIFF RGB {bits}-bit", *in_rgb, samples=rgb(colours, bits)),
            case(f"TIFF CMYK {bits}-bit", *in_cmyk, samples=from_cmyk(inks, bits)),
        ]
    for bits in (1, 2, 4, 8):
        colours = np.random.default_rng(0).integers(0, 256, (1 << bits, 3))
        table = [(320, (colours * 257).T.reshape(-1).tolist())]
        indices = ramp(1, (1 << bits) - 1)
        files = tiffs(indices, photometric=3, bits=bits, tags=table)
        cases.append(
            case(f"TIFF palette {bits}-bit", *files, samples=rgb(colours[indices[..., 0]]))
        )
    y_cb_cr = ramp(3, 255)
    files = tiffs(y_cb_cr, photometric=6, bits=8, tags=[(530, [1, 1])])
    # Red, green, blue, white and black; L* out of 255, a* and b* in two's complement.
    lab = np.array([[[138, 81, 70], [224, 177, 81], [75, 68, 144], [255, 0, 0], [0, 0, 0]]])
    meant = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]]])
    in_lab = tiff(lab, photometric=8, bits=8)
    return [
        *cases,
        case("TIFF YCbCr", *files, samples=from_ycbcr(y_cb_cr), why=AS_STORED),
        case("TIFF CIE L*a*b*", in_lab, samples=meant, why=COARSE),
    ]


def tiff_compressed() -> list[Case]:
    picture = Image.fromarray(ramp(3, 255).astype(np.uint8))
    two = picture.convert("1")
    kinds = (
        (picture, ("tiff_lzw", "packbits", "tiff_adobe_deflate")),
        (two, ("group3", "group4", "tiff_ccitt")),
    )
    cases = [
        case(
            f"TIFF {name}",
            encoded(each, "TIFF", compression=name),
            samples=np.asarray(each.convert("RGB")),
        )
        for each, names in kinds
        for name in names
    ]
    return [*cases, case("TIFF jpeg", encoded(picture, "TIFF", compression="jpeg"))]


def tiff_refused() -> list[Case]:
    grey, colours = ramp(1, 255), ramp(3, 255)
    return [
        case("TIFF 32-bit", tiff(grey, photometric=1, bits=32)),
        case("TIFF 16-bit signed", tiff(grey, photometric=1, bits=16, numbers="i")),
        case("TIFF floating-point", tiff(grey / 255, photometric=1, bits=32, numbers="f")),
        case("TIFF floating-point RGB", tiff(colours / 255, photometric=2, bits=32, numbers="f")),
        case("TIFF transparency mask", tiff(ramp(1, 1), photometric=4, bits=1)),
        case("TIFF RGB 4-bit", tiff(ramp(3, 15), photometric=2, bits=4)),
    ]


def png_grey_and_palette() -> list[Case]:
    cases = []
    for bits in (1, 2, 4, 8, 16):
        grey = ramp(1, (1 << bits) - 1)
        clear = int(grey[12, 20, 0])
        seen = np.where(grey == clear, 255, rgb(grey, bits))
        one = chunk(b"tRNS", struct.pack(">H", clear))
        name = f"PNG grey {bits}-bit"
        cases += [
            case(name, png(grey, bits=bits, colour=0), samples=rgb(grey, bits)),
            case(f"{name}, one clear", png(grey, bits=bits, colour=0, before=[one]), samples=seen),
        ]
        if bits == 16:
            break
        colours = np.random.default_rng(0).integers(0, 256, (1 << bits, 4))
        palette = chunk(b"PLTE", colours[:, :3].astype(np.uint8).tobytes())
        alphas = chunk(b"tRNS", colours[:, 3].astype(np.uint8).tobytes())
        meant = colours[grey[..., 0]]
        plain = png(grey, bits=bits, colour=3, before=[palette])
        clear_too = png(grey, bits=bits, colour=3, before=[palette, alphas])
        cases += [
            case(f"PNG palette {bits}-bit", plain, samples=rgb(meant[..., :3])),
            case(f"PNG palette {bits}-bit with alpha", clear_too, samples=on_white(meant)),
        ]
    return cases


def png_colour() -> list[Case]:
    cases = []
    for bits in (8, 16):
        largest = (1 << bits) - 1
        colours, grey_and_alpha, with_alpha = (ramp(channels, largest) for channels in (3, 2, 4))
        clear = colours[12, 20]
        seen = np.where((colours == clear).all(-1, keepdims=True), 255, rgb(colours, bits))
        one = chunk(b"tRNS", struct.pack(">3H", *clear))
        plain, one_clear = (
            png(colours, bits=bits, colour=2, before=before) for before in ([], [one])
        )
        grey, clear_too = (
            png(samples, bits=bits, colour=colour)
            for samples, colour in ((grey_and_alpha, 4), (with_alpha, 6))
        )
        cases += [
            case(f"PNG RGB {bits}-bit", plain, samples=rgb(colours, bits)),
            case(f"PNG RGB {bits}-bit, one clear", one_clear, samples=seen),
            case(f"PNG grey {bits}-bit with alpha", grey, samples=on_white(grey_and_alpha, bits)),
            case(f"PNG RGB {bits}-bit with alpha", clear_too, samples=on_white(with_alpha, bits)),
        ]
    samples = ramp(3, 255)
    interlaced = pyvips.Image.new_from_array(samples.astype(np.uint8)).pngsave_buffer(
        interlace=True
    )
    return [*cases, case("PNG interlaced", interlaced, samples=rgb(samples))]


def jpeg_and_orientation() -> list[Case]:
    picture = Image.fromarray(ramp(3, 255).astype(np.uint8)).resize((80, 48))
    cmyk = encoded(picture.convert("CMYK"), "JPEG", quality=95)
    adobe = cmyk.index(b"\xff\xee")
    turned = {"JPEG": [], "TIFF": [], "PNG": []}
    for form, orientation in product(turned, range(1, 9)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned[form].append(encoded(picture, form, exif=exif))
    return [
        case("JPEG 4:4:4", encoded(picture, "JPEG", subsampling=0)),
        case("JPEG 4:2:0", encoded(picture, "JPEG", subsampling=2)),
        case("JPEG progressive", encoded(picture, "JPEG", progressive=True)),
        case("JPEG with restart markers", encoded(picture, "JPEG", restart_marker_blocks=2)),
        case("JPEG RGB", encoded(picture, "JPEG", keep_rgb=True)),
        case("JPEG grey", encoded(picture.convert("L"), "JPEG")),
        case("JPEG CMYK, inverted as Adobe has it", cmyk),
        case("JPEG CMYK without Adobe's marker", cmyk[:adobe] + cmyk[adobe + 16 :]),
        case("JPEG with a profile", encoded(picture, "JPEG", icc_profile=swapped_profile())),
        *(case(f"{form} of orientation 1 to 8", *files) for form, files in turned.items()),
    ]


def modern() -> list[Case]:
    samples, deep = ramp(4, 255).astype(np.uint8), ramp(1, 65_535).astype(np.uint16)
    picture, clear = Image.fromarray(samples[..., :3]), Image.fromarray(samples)
    few, large = picture.quantize(256), clear.resize((64, 64))
    opaque, seen, deep_seen = rgb(samples[..., :3]), on_white(samples), rgb(deep, 16)
    y, x = np.mgrid[:48, :64]  # without edges, where the chroma's filters differ most
    smooth = np.stack([4 * x, 5 * y, 2 * x + 2 * y, 255 - 3 * x], -1).astype(np.uint8)
    soft, softly_clear = Image.fromarray(smooth[..., :3]), Image.fromarray(smooth)
    lossless = {"lossless": True}
    grey = Image.fromarray(deep[..., 0])
    heic, clear_heic = (encoded(each, "HEIF", quality=100) for each in (soft, softly_clear))
    return [
        case("GIF", encoded(few, "GIF"), samples=np.asarray(few.convert("RGB"))),
        case("WebP lossless", encoded(picture, "WEBP", **lossless), samples=opaque),
        case("WebP lossless with alpha", encoded(clear, "WEBP", **lossless), samples=seen),
        case("WebP lossy", encoded(soft, "WEBP")),
        case("WebP lossy with alpha", encoded(softly_clear, "WEBP")),
        case("AVIF", encoded(soft, "AVIF"), why=UPSCALED),
        case("AVIF with alpha", encoded(softly_clear, "AVIF"), why=UPSCALED),
        case("HEIC", heic, samples=rgb(smooth[..., :3]), why=LOSSY),
        case("HEIC with alpha", clear_heic, samples=on_white(smooth), why=LOSSY),
        case("JPEG 2000", encoded(picture, "JPEG2000"), samples=opaque),
        case("JPEG 2000 with alpha", encoded(clear, "JPEG2000"), samples=seen),
        case("JPEG 2000 grey 16-bit", encoded(grey, "JPEG2000"), samples=deep_seen),
        case("JPEG XL", encoded(picture, "JXL", **lossless), samples=opaque),
        case("JPEG XL with alpha", encoded(clear, "JXL", **lossless), samples=seen),
        case("JPEG XL grey 16-bit", encoded(grey, "JXL", **lossless), samples=deep_seen),
        case("ICO, the largest", encoded(large, "ICO", sizes=[(16, 16), (64, 64)]),
             samples=on_white(np.asarray(large))),
    ]  # fmt: skip


def bmp_and_dib() -> list[Case]:
    samples = ramp(4, 255).astype(np.uint8)
    upside_down = samples[::-1]
    height, width, _ = samples.shape
    bgra, opaque = upside_down[..., [2, 1, 0, 3]], rgb(samples[..., :3])
    unused = bgra * np.array([1, 1, 1, 0], np.uint8)
    grey, nibbles, two = upside_down[..., 0], upside_down[..., 0] >> 4, ramp(1, 1)
    falling = np.repeat(np.arange(255, -1, -1, dtype=np.uint8), 4).tobytes()
    inverted, darker = rgb(255 - samples[..., :1]), rgb(255 - (samples[..., :1] >> 4))
    runs, few_runs = (
        b"".join(b"".join(bytes([1, value << shift]) for value in row) + b"\0\0" for row in rows)
        for rows, shift in ((grey, 0), (nibbles, 4))
    )
    red, green, blue = (upside_down[..., channel].astype(int) for channel in range(3))
    five, six = (
        (red >> 3) << 10 | (green >> 3) << 5 | blue >> 3,
        (red >> 3) << 11 | (green >> 2) << 5 | blue >> 3,
    )
    short = samples[..., :3].astype(int) >> 3
    long_green = np.stack(
        [
            short[..., 0] * 255 // 31,
            (samples[..., 1].astype(int) >> 2) * 255 // 63,
            short[..., 2] * 255 // 31,
        ],
        -1,
    )
    masks, masks_565 = (0xFF0000, 0xFF00, 0xFF, 0xFF000000), (0xF800, 0x7E0, 0x1F)
    bits = np.packbits(np.pad(two[::-1, :, 0], ((0, 0), (0, 24))).astype(np.uint8), axis=1)

    def written(rows: np.ndarray | bytes, depth: int, **options: object) -> bytes:
        content = rows if isinstance(rows, bytes) else rows.tobytes()
        return bmp(content, width, height, depth, **options)

    plain = written(bgra[..., :3], 24)
    from_the_top = bmp(bgra[::-1, :, :3].tobytes(), width, -height, 24)
    packed_nibbles = nibbles[:, ::2] << 4 | nibbles[:, 1::2]
    return [
        case("BMP 1-bit", written(bits, 1, palette=b"\0\0\0\0\xff\xff\xff\0"), samples=rgb(two, 1)),
        case("BMP 4-bit", written(packed_nibbles, 4, palette=falling[:64]), samples=darker),
        case("BMP 8-bit", written(grey, 8, palette=falling), samples=inverted),
        case("BMP RLE4", written(few_runs, 4, compression=2, palette=falling[:64]), samples=darker),
        case("BMP RLE8", written(runs, 8, compression=1, palette=falling), samples=inverted),
        case("BMP 16-bit 5-5-5", written(five.astype("<u2"), 16), samples=short * 255 // 31),
        case("BMP 16-bit 5-6-5", written(six.astype("<u2"), 16, compression=3, masks=masks_565),
             samples=long_green),
        case("BMP 24-bit", plain, from_the_top, samples=opaque),
        case("DIB 24-bit", plain[14:], samples=opaque),
        case("BMP 32-bit", written(bgra, 32), samples=opaque),
        case("BMP 32-bit with alpha", written(bgra, 32, compression=3, masks=masks),
             samples=on_white(samples)),
        case("BMP 32-bit with unused alpha", written(unused, 32, compression=3, masks=masks),
             samples=opaque),
    ]  # fmt: skip


def tga_and_pnm() -> list[Case]:
    samples = ramp(4, 255).astype(np.uint8)
    height, width, _ = samples.shape
    bgra, opaque = samples[..., [2, 1, 0, 3]], rgb(samples[..., :3])
    unused = bgra * np.array([1, 1, 1, 0], np.uint8)
    runs = b"".join(b"\0" + bytes(pixel) for pixel in bgra[..., :3].reshape(-1, 3).tolist())

    def written(rows: np.ndarray | bytes, kind: int, bits: int, descriptor: int) -> bytes:
        content = rows if isinstance(rows, bytes) else rows.tobytes()
        return tga(content, width, height, kind=kind, bits=bits, descriptor=descriptor)

    colours = (
        written(bgra[::-1, :, :3], 2, 24, 0),
        written(bgra[..., :3], 2, 24, 0x20),
        written(bgra[:, ::-1, :3], 2, 24, 0x30),
        written(runs, 10, 24, 0x20),
    )
    cases = [
        case("TGA 24-bit", *colours, samples=opaque),
        case("TGA 32-bit with alpha", written(bgra, 2, 32, 0x28), samples=on_white(samples)),
        case("TGA 32-bit with unused alpha", written(unused, 2, 32, 0x20), samples=opaque),
        case("TGA grey", written(samples[..., 0], 3, 8, 0x20), samples=rgb(samples[..., :1])),
    ]
    for largest, (channels, kinds, name) in product(
        (100, 255, 1000, 65_535), ((1, "25", "PGM"), (3, "36", "PPM"))
    ):
        values = ramp(channels, largest)
        head = f"\n# a comment\n{width} {height}\n{largest}\n"
        plain = f"P{kinds[0]}{head}{' '.join(map(str, values.reshape(-1)))}".encode()
        raw = f"P{kinds[1]}{head}".encode() + packed(values, 8 if largest < 256 else 16, ">")
        meant = np.broadcast_to(values * 255 / largest, (height, width, 3))
        cases.append(case(f"{name} of 0 to {largest}", plain, raw, samples=meant))
    black = 1 - ramp(1, 1)[..., 0]
    plain = f"P1\n{width} {height}\n{' '.join(map(str, black.reshape(-1)))}".encode()
    raw = f"P4\n{width} {height}\n".encode() + np.packbits(black, axis=1).tobytes()
    return [*cases, case("PBM", plain, raw, samples=rgb(ramp(1, 1), 1))]


CASES = [
    *tiff_grey(),
    *tiff_alpha(),
    *tiff_colour(),
    *tiff_compressed(),
    *tiff_refused(),
    *png_grey_and_palette(),
    *png_colour(),
    *jpeg_and_orientation(),
    *modern(),
    *bmp_and_dib(),
    *tga_and_pnm(),
]
