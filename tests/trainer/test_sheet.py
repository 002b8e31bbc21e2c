from PIL import Image, ImageFont

from trainer.generate.sheet import SheetEntry, render_sheet, wrap


def test_a_sheet_shows_every_picture_of_every_pair() -> None:
    colours = ["red", "lime", "blue", "yellow", "cyan", "magenta", "orange", "purple", "brown"]
    pictures = [Image.new("RGB", (64, 64), colour) for colour in colours]
    entries = [
        SheetEntry(text="a", target=one, reconstruction=two, drawn=three, described="b")
        for one, two, three in zip(pictures[::3], pictures[1::3], pictures[2::3], strict=True)
    ]
    shown = {
        colour
        for _, colour in render_sheet(
            {"held out": entries[:2], "trained": entries[2:], "none": []}
        ).getcolors(1 << 20)
    }
    assert {picture.getpixel((0, 0)) for picture in pictures} <= shown


def test_a_long_text_is_cut_with_an_ellipsis_and_a_short_one_is_whole() -> None:
    font = ImageFont.load_default(13)
    assert wrap("a red square", font, 200, 2) == ["a red square"]
    lines = wrap("word " * 100, font, 200, 2)
    assert len(lines) == 2
    assert lines[-1].endswith(" …")
