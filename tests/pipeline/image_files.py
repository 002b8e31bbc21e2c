"""Image files written by hand; samples are (h, w, channels) integers."""

import struct
import zlib
from collections.abc import Iterable

import numpy as np
from PIL import ImageCms

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def ramp(channels: int, largest: int, height: int = 24, width: int = 40) -> np.ndarray:
    """Samples from 0 to the largest, with another start in each channel."""
    y, x = np.mgrid[:height, :width]
    planes = [(7 * x + 3 * y + 11 * c) % (7 * width + 3 * height) for c in range(channels)]
    return np.stack(planes, -1) * largest // (7 * width + 3 * height - 1)


def chunk(kind: bytes, payload: bytes, checksum: int | None = None) -> bytes:
    """A PNG chunk, with the right checksum unless one is given."""
    right = zlib.crc32(kind + payload)
    stated = right if checksum is None else checksum
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", stated)


def png(samples: np.ndarray, *, bits: int, colour: int, before: Iterable[bytes] = ()) -> bytes:
    """A PNG of any colour type (0 grey, 2 RGB, 3 palette, 4 and 6 with alpha) and bit depth."""
    height, width, _ = samples.shape
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    rows = b"".join(b"\0" + packed(row[None], bits, ">") for row in samples)
    pieces = [chunk(b"IHDR", header), *before, chunk(b"IDAT", zlib.compress(rows))]
    return PNG_SIGNATURE + b"".join(pieces) + chunk(b"IEND", b"")


def packed(rows: np.ndarray, bits: int, order: str, numbers: str = "u") -> bytes:
    """Rows of samples as bytes; where bits are left over, each row ends at a whole byte."""
    if bits % 8 == 0:
        return rows.astype(f"{order}{numbers}{bits // 8}").tobytes()
    out = b""
    for row in rows:
        digits = "".join(format(int(value), f"0{bits}b") for value in row.reshape(-1))
        digits += "0" * (-len(digits) % 8)
        out += int(digits, 2).to_bytes(len(digits) // 8, "big")
    return out


def tiff(
    samples: np.ndarray,
    *,
    photometric: int,
    bits: int,
    order: str = "<",
    numbers: str = "u",
    extra: tuple[int, ...] = (),
    planar: int = 1,
    tile: int | None = None,
    compression: int = 1,
    tags: Iterable[tuple[int, list[int]]] = (),
    next_page: int = 0,
) -> bytes:
    """A TIFF; `numbers` is u, i or f, `compression` 1 (none) or 8 (deflate), `tags` are SHORTs."""
    height, width, channels = samples.shape
    planes = [samples] if planar == 1 else np.split(samples, channels, -1)
    blocks = [packed(plane, bits, order, numbers) for plane in planes]
    if tile:
        pad = ((0, -height % tile), (0, -width % tile), (0, 0))
        blocks = [
            packed(np.pad(plane, pad)[y : y + tile, x : x + tile], bits, order, numbers)
            for plane in planes
            for y in range(0, height, tile)
            for x in range(0, width, tile)
        ]
    if compression == 8:
        blocks = [zlib.compress(block) for block in blocks]
    blocks = [block + b"\0" * (len(block) % 2) for block in blocks]
    offsets = [8 + sum(map(len, blocks[:number])) for number in range(len(blocks))]
    sizes = [len(block) for block in blocks]
    entries = {256: [width], 257: [height], 258: [bits] * channels, 259: [compression]}
    entries |= {262: [photometric], 277: [channels], 284: [planar]}
    entries |= {339: [{"u": 1, "i": 2, "f": 3}[numbers]] * channels} if numbers != "u" else {}
    entries |= {338: list(extra)} if extra else {}
    entries |= (
        {322: [tile], 323: [tile], 324: offsets, 325: sizes}
        if tile
        else {278: [height], 273: offsets, 279: sizes}
    )
    entries |= dict(tags)
    longs = {256, 257, 273, 278, 279, 322, 323, 324, 325}
    at = 8 + sum(sizes)
    behind = at + 2 + 12 * len(entries) + 4
    directory, values = struct.pack(f"{order}H", len(entries)), b""
    for tag, numbers_ in sorted(entries.items()):
        kind = "I" if tag in longs else "H"
        data = struct.pack(f"{order}{len(numbers_)}{kind}", *numbers_)
        field = data.ljust(4, b"\0")
        if len(data) > 4:
            field = struct.pack(f"{order}I", behind + len(values))
            values += data + b"\0" * (len(data) % 4)
        head = struct.pack(f"{order}HHI", tag, 4 if kind == "I" else 3, len(numbers_))
        directory += head + field
    directory += struct.pack(f"{order}I", next_page)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}I", at) + b"".join(blocks) + directory + values


def bmp(
    rows: bytes,
    width: int,
    height: int,
    bits: int,
    *,
    compression: int = 0,
    masks: tuple[int, ...] = (),
    palette: bytes = b"",
) -> bytes:
    """A BMP; a negative height is written from the top, four masks are those of a V4 header."""
    size = 108 if len(masks) == 4 else 40
    fields = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, compression, len(rows), 0, 0,
                         len(palette) // 4, 0)  # fmt: skip
    fields += struct.pack(f"<{len(masks)}I", *masks)
    if size == 108:
        fields = fields.ljust(108, b"\0")
    start = 14 + len(fields) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + fields + palette + rows


def tga(pixels: bytes, width: int, height: int, *, kind: int, bits: int, descriptor: int) -> bytes:
    """A TGA without a colour map; bit 5 of the descriptor is "from the top"."""
    return (
        struct.pack("<BBBHHBHHHHBB", 0, 0, kind, 0, 0, 0, 0, 0, width, height, bits, descriptor)
        + pixels
    )


def swapped_profile() -> bytes:
    """The profile of sRGB with red and blue exchanged, under another name."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"...."), (b"bXYZ", b"rXYZ"), (b"....", b"bXYZ")):
        profile = profile.replace(old, new, 1)
    return profile.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
