"""Planted copies: how many of them are found, and how many others are taken for copies.

Copies are planted among photo-like pictures (noise whose amplitudes fall as in photographs),
OpenMoji's drawings and coloured shapes. The last two hold lookalikes that are no copies: one hand
in six skin colours, one shape in eight places. Beside ours stands ImageHash's pHash, mirrored as
well, with the same rule of what stays.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator, Sequence

import imagehash
import numpy as np
from PIL import Image, ImageOps

from filters.duplicates.neighbours import Copies, copies_among
from filters.perceptual import MIRRORED, perceptual_hash, perceptual_vectors
from pipeline import images
from pipeline.sources import open_source
from pipeline.sources.openmoji import OpenMojiSettings
from pipeline.sources.shapes import ShapesSettings
from tests.benchmarks.result import Result

RADIUS = 0.15
"""The distance that the settings recommend for photographs."""
_BITS = (6, 10, 14)
"""Distances of ImageHash's pHash that people use, of 64."""
_ROWS_PER_PART = 10_000
_SIDE = 160


def measure(num_pictures: int, num_copied: int) -> Iterator[Result]:
    """Recall of each kind of copy, and the share of right ones among all that are found."""
    for name, make, is_goal in (
        ("photo-like", photos, True),
        ("OpenMoji", _drawings, False),
        ("shapes", _shapes, False),
    ):
        pictures = list(make(num_pictures))
        copies = [
            (kind, number, change(pictures[number], _chance(kind, number)))
            for kind, change in _CHANGES.items()
            for number in range(num_copied)
        ]
        everything = [*pictures, *(copy for _, _, copy in copies)]
        what = f"{num_pictures:,} {name}, {len(copies):,} copies"
        beside = [_judge(_by_imagehash(everything, bits), pictures, copies) for bits in _BITS]
        for radius in (RADIUS,) if is_goal else (RADIUS, 0.002):
            found = _judge(_by_frequencies(everything, radius), pictures, copies)
            yield from _tell(f"{what}, distance {radius:g}", found, beside, is_goal=is_goal)


def _tell(
    what: str, found: dict[str, float], beside: Sequence[dict[str, float]], *, is_goal: bool
) -> Iterator[Result]:
    measures = found if is_goal else ("recall", "precision")
    for measured in measures:
        figures = ", ".join(
            f"{other[measured]:.3f} at {bits} bits"
            for bits, other in zip(_BITS, beside, strict=True)
        )
        goal = (">= 0.99" if measured == "precision" else ">= 0.95") if is_goal else ""
        yield Result(
            name=f"{what}: {measured}", value=round(found[measured], 4), unit="share", goal=goal,
            rival=f"ImageHash's pHash: {figures}",
        )  # fmt: skip


def _judge(
    found: Copies, pictures: Sequence[Image.Image], copies: Sequence[tuple[str, int, Image.Image]]
) -> dict[str, float]:
    """Recall by kind and in all, and precision; a picture stands for its own copies alone."""
    family = np.asarray([*range(len(pictures)), *(number for _, number, _ in copies)])
    leaves = found.of >= 0
    is_right = leaves & (family[found.of] == family)
    kinds = np.asarray([""] * len(pictures) + [kind for kind, _, _ in copies])
    recall = {f"recall, {kind}": float(is_right[kinds == kind].mean()) for kind in _CHANGES}
    return {
        **recall,
        "recall": float(is_right[kinds != ""].mean()),
        "precision": float(is_right.sum() / max(1, leaves.sum())),
    }


def _by_frequencies(pictures: Sequence[Image.Image], radius: float) -> Copies:
    hashes = [perceptual_hash(picture.convert("L")) for picture in pictures]
    seen = np.asarray([number for number, own in enumerate(hashes) if own is not None])
    vectors = perceptual_vectors([own for own in hashes if own is not None])
    found = copies_among(vectors, radius, MIRRORED)
    of = np.full(len(pictures), -1)
    of[seen] = np.where(found.of >= 0, seen[found.of], -1)
    return Copies(of=of, distance=np.zeros(len(pictures)))


def _by_imagehash(pictures: Sequence[Image.Image], bits: int) -> Copies:
    own, mirrored = (
        np.stack([imagehash.phash(turn(picture)).hash.ravel() for picture in pictures]) * 2.0 - 1
        for turn in (lambda picture: picture, ImageOps.mirror)
    )
    of = np.full(len(pictures), -1)
    for number in range(len(pictures)):
        near = np.maximum(own[:number] @ own[number], own[:number] @ mirrored[number])
        first = np.flatnonzero((near >= 64 - 2 * bits) & (of[:number] < 0))
        of[number] = first[0] if len(first) else -1
    return Copies(of=of, distance=np.zeros(len(pictures)))


def photos(count: int) -> Iterator[Image.Image]:
    """Noise of seven sizes, the amplitude in proportion to the size (Field, 1987)."""
    for number in range(count):
        chance = np.random.default_rng(number)
        light = np.zeros((_SIDE, _SIDE, 3), np.float32)
        for cells in (2, 3, 5, 9, 17, 33, 65):
            noise = chance.normal(size=(3, cells, cells)) * np.reshape((1, 0.5, 0.5), (3, 1, 1))
            layers = [
                Image.fromarray(each.astype(np.float32)).resize((_SIDE, _SIDE)) for each in noise
            ]
            light += np.stack([np.asarray(each) for each in layers], axis=-1) * 2 / cells
        colours = light @ np.asarray([[1, 1, 1], [0.7, -0.3, -0.3], [0.2, 0.2, -0.8]], np.float32)
        levels = 128 + 50 * (colours - colours.mean()) / colours.std()
        yield Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def _drawings(count: int) -> Iterator[Image.Image]:
    source = open_source(OpenMojiSettings(kind="openmoji", size=_SIDE, limit=count))
    yield from _of_source(source)


def _shapes(count: int) -> Iterator[Image.Image]:
    source = open_source(ShapesSettings(kind="shapes", size=_SIDE, num_records=count))
    yield from _of_source(source)


def _of_source(source) -> Iterator[Image.Image]:
    for part in source.parts(_ROWS_PER_PART, {}):
        for record in source.read(part):
            yield images.decode(record.image)


def _chance(kind: str, number: int) -> random.Random:
    return random.Random(f"{kind}:{number}")  # noqa: S311 - reproducible, not secret


def _jpeg(image: Image.Image, _: random.Random) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=30)
    return Image.open(buffer).convert("RGB")


def _crop(image: Image.Image, chance: random.Random) -> Image.Image:
    """95 % of each side, from anywhere."""
    width, height = (round(0.95 * side) for side in image.size)
    left, top = chance.randint(0, image.width - width), chance.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def _turn(image: Image.Image, chance: random.Random) -> Image.Image:
    """By 1 to 3 degrees either way."""
    degrees = chance.choice((-1, 1)) * chance.uniform(1, 3)
    return image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor="white")


def _frame(image: Image.Image, chance: random.Random) -> Image.Image:
    return ImageOps.expand(image, image.width // 16, chance.choice(("white", "black", "grey")))


_CHANGES: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "resized to 60 %": lambda image, _: image.resize([round(0.6 * side) for side in image.size]),
    "JPEG at quality 30": _jpeg,
    "cropped by 5 %": _crop,
    "mirrored": lambda image, _: ImageOps.mirror(image),
    "grey": lambda image, _: image.convert("L").convert("RGB"),
    "framed": _frame,
    "turned by 1 to 3 degrees": _turn,
}
