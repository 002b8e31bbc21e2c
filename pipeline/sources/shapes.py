"""Coloured shapes on a plain ground, made from a seed: any number of exactly captioned pictures.

The captions are exact by construction, so that tests and benchmarks can be checked by an oracle.
Five kinds take turns: a single shape, two shapes anywhere, several equal shapes (counting), a
named ground (colours), and two shapes in a stated relation.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Literal, NamedTuple

from PIL import Image, ImageDraw
from pydantic import Field

from pipeline.engine.fingerprint import unit_interval
from pipeline.engine.parts import Part, SourceRecord, UnreadableRecord
from pipeline.settings import Settings

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 210, 40),
    "orange": (245, 140, 30),
    "purple": (140, 60, 180),
    "black": (20, 20, 20),
    "grey": (140, 140, 140),
}
SHAPES = ("circle", "square", "triangle", "cross")
NUMBERS = ("two", "three", "four")
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
KINDS = ("single", "two", "counting", "colours", "relation")


Combination = tuple[str, str]
"""A colour and a shape."""


class ShapesSettings(Settings):
    """`kind: shapes`: procedural pictures."""

    kind: Literal["shapes"]
    name: str = "shapes"
    num_records: int = Field(default=1000, ge=1)
    """How many pictures to make."""
    size: int = Field(default=32, ge=16, le=512)
    """Side of a picture in pixels."""
    seed: int = 0
    """Another seed gives other pictures."""
    held_out: float = Field(default=0, ge=0, le=0.5, exclude_if=lambda share: not share)
    """Share of the combinations of a colour and a shape that no picture shows, so that a model can
    be asked for what it has not seen. Each colour and each shape is still seen."""

    @property
    def held_out_combinations(self) -> frozenset[Combination]:
        """Those that no picture shows; a hash of the seed chooses them."""
        chosen: set[Combination] = set()
        # 12 of the 32 stay at most, as the last one of a colour or a shape: half can be chosen.
        number = math.ceil(self.held_out * len(COLOURS) * len(SHAPES))
        for colour, shape in sorted(
            product(COLOURS, SHAPES),
            key=lambda each: unit_interval("held out", f"{self.seed}", *each),
        ):
            is_last_of_colour = sum(each == colour for each, _ in chosen) == len(SHAPES) - 1
            is_last_of_shape = sum(each == shape for _, each in chosen) == len(COLOURS) - 1
            if len(chosen) < number and not (is_last_of_colour or is_last_of_shape):
                chosen.add((colour, shape))
        return frozenset(chosen)


class ShapesSource:
    """Record `i` depends on the seed and on `i` alone."""

    def __init__(self, settings: ShapesSettings) -> None:
        self._settings = settings

    def parts(self, rows_per_part: int, known: Mapping[str, Part]) -> Iterator[Part]:  # noqa: ARG002
        """Runs of numbers."""
        settings = self._settings
        for start in range(0, settings.num_records, rows_per_part):
            count = min(rows_per_part, settings.num_records - start)
            slice_: dict[str, float] = {
                "start": start,
                "count": count,
                "size": settings.size,
                "seed": settings.seed,
            }
            if settings.held_out:  # else the slice is what it was before there was the setting
                slice_["held_out"] = settings.held_out
            yield Part.of(settings.name, slice_, num_records=count)

    def read(self, part: Part) -> Iterator[SourceRecord | UnreadableRecord]:
        """Draw the pictures of one run."""
        start = part.slice["start"]
        size, seed = self._settings.size, self._settings.seed
        is_seen = self._settings.held_out_combinations.isdisjoint
        for index in range(start, start + part.slice["count"]):
            image, caption = draw(index, size=size, seed=seed, fits=is_seen)
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            yield SourceRecord(
                key=f"{seed}:{size}:{index:09d}",
                caption=caption,
                image=buffer.getvalue(),
                licence="CC0-1.0",
                attribution="",
                origin=f"shapes:{seed}:{index}",
            )


class Placed(NamedTuple):
    """A shape in a picture."""

    colour: str
    shape: str
    cell: tuple[int, int]
    """Column and row on a 3 x 3 grid."""


def draw(
    index: int,
    *,
    size: int,
    seed: int,
    fits: Callable[[frozenset[Combination]], bool] = lambda _: True,
) -> tuple[Image.Image, str]:
    """Picture number `index` of a seed, and its caption.

    Args:
        index: its number.
        size: its side in pixels.
        seed: another one gives other pictures.
        fits: whether a picture may show these combinations and no others; one that may not is
            thought up again.
    """
    chance = random.Random(f"{seed}:{index}")  # noqa: S311 - reproducible, not secret
    while True:
        placed, ground, caption = _think_up(KINDS[index % len(KINDS)], chance)
        if fits(frozenset((each.colour, each.shape) for each in placed)):
            return paint(placed, ground=ground, size=size), caption


def _think_up(kind: str, chance: random.Random) -> tuple[list[Placed], str, str]:
    """Shapes of a kind of picture, their ground, and the caption."""
    colour, other = chance.sample(sorted(COLOURS), 2)
    shape, other_shape = chance.choice(SHAPES), chance.choice(SHAPES)
    cells = chance.sample([(column, row) for column in range(3) for row in range(3)], 4)
    ground = "white"
    if kind == "single":
        placed = [Placed(colour, shape, cells[0])]
        caption = f"a {colour} {shape}"
    elif kind == "two":
        placed = [Placed(colour, shape, cells[0]), Placed(other, other_shape, cells[1])]
        caption = f"a {colour} {shape} and a {other} {other_shape}"
    elif kind == "counting":
        number = chance.randrange(len(NUMBERS))
        placed = [Placed(colour, shape, cell) for cell in cells[: number + 2]]
        plural = "crosses" if shape == "cross" else f"{shape}s"
        caption = f"{NUMBERS[number]} {colour} {plural}"
    elif kind == "colours":
        placed, ground = [Placed(colour, shape, cells[0])], other
        caption = f"a {colour} {shape} on a {other} ground"
    else:
        relation = chance.choice(sorted(RELATIONS))
        across, down = RELATIONS[relation]
        placed = [
            Placed(colour, shape, (1 + across, 1 + down)),
            Placed(other, other_shape, (1 - across, 1 - down)),
        ]
        caption = f"a {colour} {shape} {relation} a {other} {other_shape}"
    return placed, ground, caption


def paint(placed: list[Placed], *, ground: str, size: int) -> Image.Image:
    """Shapes on a plain ground, `white` or one of `COLOURS`; `size` pixels wide and high."""
    # Drawn four times as large and scaled down, so that edges are smooth.
    side = size * 4
    image = Image.new("RGB", (side, side), COLOURS.get(ground, (255, 255, 255)))
    canvas = ImageDraw.Draw(image)
    step = side / 3
    for colour, shape, (column, row) in placed:
        x, y, r = (column + 0.5) * step, (row + 0.5) * step, step * 0.4
        fill = COLOURS[colour]
        if shape == "circle":
            canvas.ellipse((x - r, y - r, x + r, y + r), fill=fill)
        elif shape == "square":
            canvas.rectangle((x - r, y - r, x + r, y + r), fill=fill)
        elif shape == "triangle":
            canvas.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=fill)
        else:
            canvas.rectangle((x - r, y - r / 3, x + r, y + r / 3), fill=fill)
            canvas.rectangle((x - r / 3, y - r, x + r / 3, y + r), fill=fill)
    return image.resize((size, size), Image.Resampling.LANCZOS)
