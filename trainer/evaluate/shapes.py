"""Shape-GenEval: whether drawn pictures of coloured shapes show what their captions say.

The captions of `pipeline.sources.shapes` are exact, and so is this oracle: it compares each of the
nine cells of a picture with every shape in every colour on every ground. The five kinds are those
of GenEval (Ghosh et al., arXiv 2310.11513, section 3): one object, two objects, counting, colours
and position; each with colours bound to shapes.

Legend: h w pixels of a cell.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from PIL import Image

from pipeline.sources.shapes import (
    COLOURS,
    KINDS,
    NUMBERS,
    RELATIONS,
    SHAPES,
    Combination,
    Placed,
    ShapesSettings,
    draw,
    paint,
)
from trainer.evaluate.share import Share

GROUNDS = {"white": (255, 255, 255), **COLOURS}

_FRESH = 1_000_003
"""Added to a source's seed, so that its pictures are others."""
_FARTHEST = 0.03
"""Mean squared difference, of channels in [0, 1], beyond which a cell shows nothing that is known.
Measured at 32 pixels: noise is 0.07 from anything known, and of pictures that are blurred by one
pixel 99 of 100 cells stay within 0.025."""

_ONE = rf"an? (?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)})"
_OTHER = _ONE.replace("<colour>", "<other_colour>").replace("<shape>", "<other_shape>")
_PATTERNS = {
    "single": re.compile(_ONE),
    "two": re.compile(f"{_ONE} and {_OTHER}"),
    "counting": re.compile(
        rf"(?P<number>{'|'.join(NUMBERS)}) (?P<colour>{'|'.join(COLOURS)}) "
        rf"(?P<shape>{'|'.join(SHAPES)})e?s"
    ),
    "colours": re.compile(rf"{_ONE} on an? (?P<ground>{'|'.join(COLOURS)}) ground"),
    "relation": re.compile(rf"{_ONE} (?P<relation>{'|'.join(RELATIONS)}) {_OTHER}"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a picture shows.

    Attributes:
        ground: its colour.
        shapes: what is in the nine cells, row by row.
        is_clear: whether each cell is empty or shows a shape that is known.
    """

    ground: str
    shapes: tuple[Placed, ...]
    is_clear: bool


def read_scene(image: Image.Image) -> Scene:
    """What a square picture shows, whatever its size."""
    pixels = _pixels(image)
    ground = _ground(pixels)
    shapes: list[Placed] = []
    is_clear = True
    for cell, names, templates in _templates(image.width, ground):
        box = _box(image.width, cell)
        differences = ((templates - pixels[box]) ** 2).mean(axis=(1, 2, 3))  # (n,)
        nearest = int(differences.argmin())
        is_clear &= bool(differences[nearest] <= _FARTHEST)
        name = names[nearest]
        if name is not None:
            shapes.append(name)
    return Scene(ground=ground, shapes=tuple(shapes), is_clear=is_clear)


def kind_of(caption: str) -> str | None:
    """Which of `KINDS` a caption is of; None of a text that is no such caption."""
    return next((kind for kind, each in _PATTERNS.items() if each.fullmatch(caption)), None)


def shows(scene: Scene, caption: str) -> bool:
    """Whether a picture shows what its caption says, that and nothing else.

    Raises:
        ValueError: when the text is no caption of the shapes.
    """
    kind = kind_of(caption)
    if kind is None:
        raise ValueError(f"{caption!r} is no caption of the shapes")
    said = _PATTERNS[kind].fullmatch(caption)
    assert said is not None, "its kind was found by it"  # noqa: S101
    one = (said["colour"], said["shape"])
    expected = Counter({one: 1})
    if kind in {"two", "relation"}:
        expected[said["other_colour"], said["other_shape"]] += 1
    elif kind == "counting":
        expected[one] = NUMBERS.index(said["number"]) + 2
    ground = said["ground"] if kind == "colours" else "white"
    found = Counter((each.colour, each.shape) for each in scene.shapes)
    if not scene.is_clear or scene.ground != ground or found != expected:
        return False
    if kind != "relation":
        return True
    first, second = scene.shapes
    if (first.colour, first.shape) != one:
        first, second = second, first
    across, down = RELATIONS[said["relation"]]
    column, row = (a - b for a, b in zip(first.cell, second.cell, strict=True))
    return column * across > 0 if across else row * down > 0


def judge(pictures: Sequence[Image.Image], captions: Sequence[str]) -> dict[str, Share]:
    """How many pictures of each kind show what their captions say, and of `all` kinds together."""
    right: Counter[str] = Counter()
    num: Counter[str] = Counter()
    for picture, caption in zip(pictures, captions, strict=True):
        kind = kind_of(caption) or "unknown"
        for name in (kind, "all"):
            num[name] += 1
            right[name] += shows(read_scene(picture), caption)
    return {name: Share(num_right=right[name], num=num[name]) for name in (*KINDS, "all")}


def fresh_pairs(
    num: int, settings: ShapesSettings, *, held_out: bool
) -> list[tuple[Image.Image, str]]:
    """Pictures of all kinds in turn that a source does not draw, with their captions.

    Args:
        num: how many.
        settings: of the source.
        held_out: whether each shows a combination that the source holds out, or none does.
    """
    combinations = settings.held_out_combinations

    def fits(shown: frozenset[Combination]) -> bool:
        return combinations.isdisjoint(shown) != held_out

    size, seed = settings.size, settings.seed + _FRESH
    return [draw(index, size=size, seed=seed, fits=fits) for index in range(num)]


def _pixels(image: Image.Image) -> np.ndarray:
    """(side, side, 3) float32 in [0, 1]."""
    return np.asarray(image.convert("RGB"), np.float32) / 255


def _ground(pixels: np.ndarray) -> str:
    """The colour of the outermost pixels, which no shape reaches."""
    frame = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])  # (n, 3)
    known = np.array(list(GROUNDS.values()), np.float32) / 255  # (g, 3)
    nearest = ((frame[:, None] - known) ** 2).sum(axis=2).argmin(axis=1)  # (n,)
    return list(GROUNDS)[int(np.bincount(nearest, minlength=len(GROUNDS)).argmax())]


def _box(side: int, cell: tuple[int, int]) -> tuple[slice, slice]:
    """The rows and columns of a cell."""
    column, row = cell
    edges = [round(number * side / 3) for number in range(4)]
    return slice(edges[row], edges[row + 1]), slice(edges[column], edges[column + 1])


@cache
def _templates(
    side: int, ground: str
) -> list[tuple[tuple[int, int], list[Placed | None], np.ndarray]]:
    """For each cell all that it may show, nothing first, and (n, h, w, 3) float32 in [0, 1]."""
    empty = _pixels(paint([], ground=ground, size=side))
    found = []
    for row, column in product(range(3), range(3)):
        cell = (column, row)
        names: list[Placed | None] = [None]
        box = _box(side, cell)
        crops = [empty[box]]
        for colour, shape in product(COLOURS, SHAPES):
            if colour == ground:
                continue
            placed = Placed(colour, shape, cell)
            names.append(placed)
            crops.append(_pixels(paint([placed], ground=ground, size=side))[box])
        found.append((cell, names, np.stack(crops)))
    return found
