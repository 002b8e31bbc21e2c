import itertools
import math
import os

import pytest
from PIL import Image
from pydantic import ValidationError

from pipeline import images
from pipeline.sources import (
    FolderSettings,
    OpenMojiSettings,
    PydocSettings,
    ShapesSettings,
    open_source,
)
from pipeline.sources.shapes import COLOURS, SHAPES


def read(settings, rows_per_part=100):
    source = open_source(settings)
    return [record for part in source.parts(rows_per_part, {}) for record in source.read(part)]


SOURCES = [
    OpenMojiSettings(kind="openmoji", limit=30),
    PydocSettings(kind="pydoc", limit=30),
    ShapesSettings(kind="shapes", num_records=30),
]


@pytest.mark.parametrize("settings", SOURCES, ids=lambda settings: settings.kind)
def test_a_source_gives_the_same_records_however_it_is_cut(settings):
    assert read(settings, 7) == read(settings, 100)


@pytest.mark.parametrize("settings", SOURCES, ids=lambda settings: settings.kind)
def test_parts_count_their_records_and_keys_are_unique(settings):
    source = open_source(settings)
    parts = list(source.parts(7, {}))
    assert sum(part.num_records for part in parts) == 30
    assert len({part.name for part in parts}) == len(parts)
    assert len({record.key for record in read(settings)}) == 30


def test_openmoji_draws_the_named_emoji_on_white():
    records = {record.key: record for record in read(OpenMojiSettings(kind="openmoji", limit=1200))}
    apple = records["1F34E"]
    image = images.decode(apple.image)
    assert apple.caption == "red apple"
    assert (apple.licence, image.size) == ("CC-BY-SA-4.0", (64, 64))
    assert image.getpixel((0, 0)) == (255, 255, 255)
    red, green, blue = image.getpixel((32, 40))
    assert red > 150 > max(green, blue)
    assert records["1F1E9-1F1EA"].caption == "flag of Germany"


def test_pydoc_gives_prose():
    for record in read(PydocSettings(kind="pydoc", limit=60)):
        assert record.image is None
        assert "****" not in record.caption
        assert len(record.caption.split()) >= 3


def test_shapes_draw_what_their_captions_say():
    for record in read(ShapesSettings(kind="shapes", num_records=50, size=48)):
        colours = {"red": (220, 40, 40), "blue": (40, 80, 220)}
        for colour, value in colours.items():
            pixels = set(images.decode(record.image).get_flattened_data())
            assert (value in pixels) == (colour in record.caption.split()), record.caption


def test_other_seeds_draw_other_shapes():
    one = read(ShapesSettings(kind="shapes", num_records=9, seed=1))
    two = read(ShapesSettings(kind="shapes", num_records=9, seed=2))
    assert [record.image for record in one] != [record.image for record in two]


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5])
def test_held_out_combinations_are_in_no_picture_of_shapes(share):
    settings = ShapesSettings(kind="shapes", num_records=300, size=16, held_out=share)
    combinations = settings.held_out_combinations
    assert len(combinations) == math.ceil(share * 32)
    seen = set(itertools.product(COLOURS, SHAPES)) - combinations
    assert {colour for colour, _ in seen} == set(COLOURS)
    assert {shape for _, shape in seen} == set(SHAPES)
    captions = [record.caption for record in read(settings)]
    for colour, shape in combinations:
        assert not any(f"{colour} {shape}" in caption for caption in captions)
    other = ShapesSettings(kind="shapes", held_out=share, seed=1)
    assert other.held_out_combinations != combinations


def test_shapes_without_held_out_combinations_are_what_they_were():
    settings = ShapesSettings(kind="shapes")
    assert settings.held_out_combinations == frozenset()
    (part,) = open_source(settings).parts(1000, {})
    assert set(part.slice) == {"start", "count", "size", "seed"}


@pytest.fixture
def folder(tmp_path):
    for index in range(40):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / f"{index:02d}.png")
        (tmp_path / f"{index:02d}.txt").write_text(f"picture {index}")
    return FolderSettings(kind="folder", path=tmp_path)


def parts_of(settings, known=None):
    return list(open_source(settings).parts(5, known or {}))


def test_an_untouched_slice_of_a_folder_is_not_read_again(folder):
    before = parts_of(folder)
    known = {part.look: part for part in before}
    # Same names, sizes and times: the look is the same, so the bytes are not opened.
    path = folder.path / "00.txt"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_text("PICTURE 0")
    os.utime(path, ns=times)
    assert parts_of(folder, known) == before
    assert parts_of(folder) != before


def test_only_the_slice_of_a_changed_file_gets_another_name(folder):
    before = {part.name for part in parts_of(folder)}
    (folder.path / "17.txt").write_text("another caption")
    after = {part.name for part in parts_of(folder)}
    assert len(before) > 3
    assert len(after - before) == 1


def test_a_folder_that_is_not_there_is_refused():
    with pytest.raises(ValidationError, match="there is no folder"):
        FolderSettings(kind="folder", path="/does/not/exist")


def test_a_picture_of_too_many_bytes_is_not_read(folder):
    settings = folder.model_copy(update={"max_image_bytes": 10})
    assert {record.reason for record in read(settings)} == {"ingest-image-too-large"}
