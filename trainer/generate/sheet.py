"""The sample sheet: pictures next to what the model draws of their texts, as one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

_SIDE, _GAP, _LINE, _FONT = 128, 8, 16, 13  # pixels
_LINES_PER_TEXT, _COLUMNS = 2, 2
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_HEADS = ("picture", "as codes", "drawn from the text")


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetEntry:
    """One pair and what the model makes of it.

    Attributes:
        text: the prompt.
        target: the picture that belongs to it.
        reconstruction: what is left of that picture in its codes.
        drawn: the model's picture for the text.
        described: the model's text for the picture.
    """

    text: str
    target: Image.Image
    reconstruction: Image.Image
    drawn: Image.Image
    described: str


def render_sheet(halves: Mapping[str, Sequence[SheetEntry]]) -> Image.Image:
    """All entries in two columns under the title of their half, the texts under the pictures."""
    parts = [_render_half(title, entries) for title, entries in halves.items()]
    width = max(part.width for part in parts)
    sheet = Image.new("RGB", (width, sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def _render_half(title: str, entries: Sequence[SheetEntry]) -> Image.Image:
    width = 3 * _SIDE + 4 * _GAP
    height = _SIDE + 2 * _LINES_PER_TEXT * _LINE + 2 * _GAP
    head_height = 2 * _LINE + 2 * _GAP
    num_rows = -(-len(entries) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * width, head_height + num_rows * height), "white")
    font = ImageFont.load_default(_FONT)
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP, _GAP // 2), title, fill="black", font=ImageFont.load_default(_FONT + 2))
    for column in range(_COLUMNS):
        for index, head in enumerate(_HEADS):
            place = (column * width + _GAP + index * (_SIDE + _GAP), _LINE + _GAP)
            pen.text(place, head, fill="grey", font=font)
    for number, entry in enumerate(entries):
        left = number % _COLUMNS * width + _GAP
        top = number // _COLUMNS * height + head_height
        for index, picture in enumerate((entry.target, entry.reconstruction, entry.drawn)):
            scaled = picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
            sheet.paste(scaled, (left + index * (_SIDE + _GAP), top))
        y = top + _SIDE + _GAP // 2
        for text, colour in ((entry.text, "black"), (f"read as: {entry.described}", "grey")):
            for line in wrap(text, font, 3 * _SIDE + 2 * _GAP, _LINES_PER_TEXT):
                pen.text((left, y), line, fill=colour, font=font)
                y += _LINE
    return sheet


def wrap(text: str, font: Font, width: int, max_lines: int) -> list[str]:
    """The text as lines of at most `width` pixels; the last ends in … where more would follow."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > max_lines:
        lines = [*lines[: max_lines - 1], f"{lines[max_lines - 1]} …"]
    return lines
