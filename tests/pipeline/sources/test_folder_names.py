"""Names in a folder as downloaders, macOS and spreadsheets write them."""

import json
import unicodedata

import pytest

from pipeline.sources import FolderSettings, TableSettings, WebDatasetSettings, open_source
from tests.faults.bad_records import pair, tar_of
from tests.pipeline.sources.files import png, read, write_json_lines, write_lines


def folder(root):
    return FolderSettings(kind="folder", path=root)


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_row", ["NFC", "NFD"])
def test_accents_may_be_written_in_both_ways(tmp_path, on_disk, in_row):
    name = "Żółw 한국.png"
    (tmp_path / unicodedata.normalize(on_disk, name)).write_bytes(png())
    row = {"file_name": unicodedata.normalize(in_row, name), "text": "a turtle"}
    path = write_json_lines(tmp_path / "metadata.jsonl", row)
    for settings in (folder(tmp_path), TableSettings(kind="table", path=path)):
        (record,), rejects = read(settings)
        assert (record.caption, record.image, rejects) == ("a turtle", png(), [])


def test_what_macos_writes_next_to_each_file_is_no_picture_and_no_tar(tmp_path):
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "a.txt").write_text("a cat")
    (tmp_path / "b.tar").write_bytes(tar_of(*pair("b")))
    for name in ("._a.png", "._a.txt", "._b.tar", "__MACOSX/._a.png", "__MACOSX/a.png"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7" * 99)
    assert [[record.key for record in read(folder(tmp_path))[0]], read(folder(tmp_path))[1]] == [
        ["a.png"],
        [],
    ]
    tars = WebDatasetSettings(kind="webdataset", path=tmp_path)
    assert len(read(tars)[0]) == 1
    assert read(tars)[1] == []


def test_a_caption_file_may_have_the_whole_name_of_the_picture_before_its_ending(tmp_path):
    for name in ("a.png", "b.JPG", "c.png", "c.jpg", "d.png"):
        (tmp_path / name).write_bytes(png())
    (tmp_path / "a.png.txt").write_text("a")
    (tmp_path / "b.JPG.json").write_text(json.dumps({"description": "b", "author": "Ann"}))
    (tmp_path / "c.txt").write_text("c")
    (tmp_path / "c.jpg.json").write_text(json.dumps({"license": "CC0-1.0"}))
    (tmp_path / "d.txt").write_text("d")
    (tmp_path / "d.png.txt").write_text("not this")
    records, rejects = read(folder(tmp_path))
    assert {each.key: each.caption for each in records} == {
        "a.png": "a", "b.JPG": "b", "c.png": "c", "c.jpg": "c", "d.png": "d",
    }  # fmt: skip
    assert rejects == []
    by_key = {each.key: each for each in records}
    assert by_key["b.JPG"].attribution == "Ann"
    assert (by_key["c.jpg"].licence, by_key["c.png"].licence) == ("CC0-1.0", "unknown")
    source = open_source(folder(tmp_path))
    list(source.parts(9, {}))
    assert source.unread == {".txt next to another caption file": 1}


def test_spaces_around_a_licence_do_not_count(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    write_lines(tmp_path / "metadata.csv", " File Name , Caption , License ", "a.png, a cat , CC0 ")
    ((record,), _) = read(folder(tmp_path))
    assert record.licence == "CC0"
