"""Icon sets in Iconify's JSON format: packed by npm, unpacked, or one JSON file."""

import io
import json
import tarfile

import pytest
from pydantic import ValidationError

from pipeline import images
from pipeline.errors import UserError
from pipeline.sources import open_source
from pipeline.sources.iconify import IconifySettings

DOT = '<circle cx="18" cy="18" r="16" fill="#d22"/>'
INFO = {
    "author": {"name": "An Artist", "url": "https://icons.example/set"},
    "license": {"title": "CC BY 4.0", "spdx": "CC-BY-4.0"},
}


def icons(prefix="dots", **icons):
    return {
        "prefix": prefix,
        "width": 36,
        "height": 36,
        "icons": {name.replace("_", "-"): icon for name, icon in icons.items()},
    }


def pack(path, content, info=INFO):
    """A package as `npm pack` writes it."""
    with tarfile.open(path, "w:gz") as tar:
        for name, value in (("icons.json", content), ("info.json", info)):
            raw = json.dumps(value).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))


def read(path, rows_per_part=100, **settings):
    source = open_source(IconifySettings(kind="iconify", path=path, **settings))
    parts = list(source.parts(rows_per_part, {}))
    records = [record for part in parts for record in source.read(part)]
    assert sum(part.num_records for part in parts) == len(records)
    return records


def test_an_icon_is_drawn_on_white_with_its_name_style_and_licence(tmp_path):
    pack(tmp_path / "dots.tgz", icons("big-dots", red_dot={"body": DOT}))
    (record,) = read(tmp_path, size=48)
    assert record.key == "big-dots/red-dot"
    assert record.caption == "red dot, Big Dots style"
    assert list(record.more_captions.values()) == [
        "a Big Dots drawing of red dot", "red dot as in Big Dots",
    ]  # fmt: skip
    assert (record.licence, record.attribution) == ("CC-BY-4.0", "An Artist")
    assert record.origin == "https://icons.example/set"
    image = images.decode(record.image)
    assert image.size == (48, 48)
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert image.getpixel((24, 24)) == (221, 34, 34)


def test_packed_unpacked_and_single_files_give_the_same_records(tmp_path):
    content = icons(red_dot={"body": DOT}, blue_dot={"body": DOT})
    for name in ("packed", "unpacked", "single"):
        (tmp_path / name).mkdir()
    pack(tmp_path / "packed" / "dots.tgz", content)
    (tmp_path / "unpacked" / "icons.json").write_text(json.dumps(content))
    (tmp_path / "unpacked" / "info.json").write_text(json.dumps(INFO))
    (tmp_path / "single" / "dots.json").write_text(json.dumps(content | {"info": INFO}))
    packed = read(tmp_path / "packed")
    assert [record.key for record in packed] == ["dots/blue-dot", "dots/red-dot"]
    assert read(tmp_path / "unpacked") == packed
    assert read(tmp_path / "single") == packed
    assert read(tmp_path / "packed" / "dots.tgz") == packed
    assert read(tmp_path / "packed", rows_per_part=1) == packed


def test_an_icon_has_its_own_box(tmp_path):
    icon = {"body": DOT, "left": 9, "top": 9, "width": 18, "height": 9}
    pack(tmp_path / "dots.tgz", icons(part={**icon}))
    (record,) = read(tmp_path)
    assert images.decode(record.image).size == (64, 32)


def test_names_that_few_sets_draw_and_excluded_ones_are_left_out(tmp_path):
    for prefix, names in (("a", ("cat", "flag-x")), ("b", ("cat", "dog", "flag-x"))):
        drawn = {name: {"body": DOT} for name in names}
        pack(tmp_path / f"{prefix}.tgz", icons(prefix, **drawn, old={"body": DOT, "hidden": True}))
    keys = [record.key for record in read(tmp_path, min_sets=2, exclude=("flag-*",))]
    assert keys == ["a/cat", "b/cat"]
    assert [record.key for record in read(tmp_path, limit=1)] == ["a/cat", "b/cat"]
    with pytest.raises(UserError, match=r"no icon in .* is left by min_sets 3"):
        read(tmp_path, min_sets=3)


def test_a_set_that_is_there_twice_is_named(tmp_path):
    for name in ("old", "new"):
        pack(tmp_path / f"{name}.tgz", icons(a={"body": DOT}))
    with pytest.raises(UserError, match=r"holds the set 'dots' twice: new\.tgz and old\.tgz"):
        read(tmp_path)


def test_an_icon_that_cannot_be_drawn_is_a_reject_and_the_others_stay(tmp_path):
    link = '<image href="file:///etc/hostname" width="9" height="9"/>'
    drawn = icons(
        a={"body": "<path"}, b={"body": link}, c={"body": DOT}, d={"body": DOT, "left": None}
    )
    pack(tmp_path / "dots.tgz", drawn)
    damaged, outside, good, nowhere = read(tmp_path)
    assert (damaged.reason, damaged.key) == ("decode-svg-damaged", "dots/a")
    assert (nowhere.reason, nowhere.key) == ("decode-svg-damaged", "dots/d")
    assert outside.reason == "decode-svg-external-reference"
    assert good.key == "dots/c"


def test_a_changed_drawing_changes_its_part_alone(tmp_path):
    names = [f"n{number}" for number in range(40)]
    drawn = {name: {"body": DOT} for name in names}

    def parts():
        source = open_source(IconifySettings(kind="iconify", path=tmp_path))
        return {part.name for part in source.parts(5, {})}

    pack(tmp_path / "dots.tgz", icons(**drawn))
    before = parts()
    pack(tmp_path / "dots.tgz", icons(**drawn | {"n7": {"body": DOT.replace("16", "9")}}))
    assert len(before - parts()) == 1


def test_a_licence_that_has_changed_next_to_a_set_is_read_again(tmp_path):
    (tmp_path / "icons.json").write_text(json.dumps(icons(a={"body": DOT})))
    for spdx in ("MIT", "CC0-1.0"):
        (tmp_path / "info.json").write_text(json.dumps(INFO | {"license": {"spdx": spdx}}))
        (record,) = read(tmp_path)
        assert record.licence == spdx


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{}", "KeyError: 'prefix'"),
        (b"[]", "is not an icon set"),
        (b"not JSON", "is not an icon set"),
        (b'{"prefix": "x", "icons": {"a": {}}}', "KeyError: 'body'"),
    ],
)
def test_a_file_that_is_no_icon_set_is_named(tmp_path, content, said):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        read(tmp_path)
    assert "x.json" in str(error.value)
    assert "npm pack @iconify-json/NAME" in error.value.hint


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"captions": ["{colour} {name}"]}, "only {name} and {style} can be filled in"),
        ({"captions": ["a picture"]}, "has no {name}"),
    ],
)
def test_a_wording_that_cannot_be_filled_in_is_refused(tmp_path, settings, said):
    pack(tmp_path / "dots.tgz", icons(a={"body": DOT}))
    with pytest.raises(ValidationError, match=said):
        IconifySettings(kind="iconify", path=tmp_path, **settings)


def test_a_folder_without_a_set_is_refused(tmp_path):
    with pytest.raises(ValidationError, match="holds no icon set"):
        IconifySettings(kind="iconify", path=tmp_path)
