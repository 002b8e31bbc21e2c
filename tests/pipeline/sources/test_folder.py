"""A folder of pictures: where captions may stand, and what a change touches."""

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.engine.parts import Part
from pipeline.errors import UserError
from pipeline.sources import FolderSettings, SoundsSettings, open_source
from tests.pipeline.sources.files import (
    forbidden_to_root,
    parts_of,
    png,
    read,
    write_json_lines,
    write_lines,
    write_parquet,
)


def folder(root, **settings):
    return FolderSettings(kind="folder", path=root, **settings)


@pytest.fixture
def picture(tmp_path):
    (tmp_path / "cat.png").write_bytes(png())
    return tmp_path / "cat.png"


@pytest.mark.parametrize(
    ("content", "caption", "more"),
    [
        ("a cat", "a cat", {}),
        ({"caption": "a cat", "url": "https://x.org", "width": 3}, "a cat", {}),
        ({"caption": ["a cat", "a kitten"]}, "a cat", {"caption-1": "a kitten"}),
        ({"en": "a cat", "de": "eine Katze", "width": 3}, "a cat", {"de": "eine Katze"}),
        ({"caption": {"en": "a cat", "de": "eine Katze"}}, "a cat", {"de": "eine Katze"}),
        (["a cat", "a kitten"], "a cat", {"caption-1": "a kitten"}),
    ],
)
def test_json_beside_a_picture_holds_one_or_several_captions(picture, content, caption, more):
    picture.with_suffix(".json").write_text(json.dumps(content))
    (record,), _ = read(folder(picture.parent))
    assert (record.caption, record.more_captions) == (caption, more)
    assert record.image_ref == picture.as_posix()


def test_columns_choose_the_keys_of_the_json(picture):
    texts = {"caption": "a cat", "de": "eine Katze", "alt": "CAT"}
    picture.with_suffix(".json").write_text(json.dumps(texts))
    (record,), _ = read(folder(picture.parent, caption_columns=["de", "alt"]))
    assert (record.caption, record.more_captions) == ("eine Katze", {"alt": "CAT"})


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_one_metadata_file_gives_the_captions_of_all(tmp_path, suffix):
    rows = {
        "file_name": ["deep/cat.png", "dog.png"],
        "text": ["a cat", "a dog"],
        "text_de": ["eine Katze", "ein Hund"],
        "label": [3, 4],
    }
    (tmp_path / "deep").mkdir()
    for name in rows["file_name"]:
        (tmp_path / name).write_bytes(png())
    path = tmp_path / f"metadata.{suffix}"
    match suffix:
        case "csv":
            write_lines(
                path,
                ",".join(rows),
                *(",".join(map(str, row)) for row in zip(*rows.values(), strict=True)),
            )
        case "jsonl":
            write_lines(
                path,
                *(
                    json.dumps(dict(zip(rows, row, strict=True)))
                    for row in zip(*rows.values(), strict=True)
                ),
            )
        case _:
            write_parquet(path, rows)
    records, rejects = read(folder(tmp_path))
    assert [(each.key, each.caption, each.more_captions) for each in records] == [
        ("deep/cat.png", "a cat", {"text_de": "eine Katze"}),
        ("dog.png", "a dog", {"text_de": "ein Hund"}),
    ]
    assert not rejects
    german, _ = read(folder(tmp_path, caption_columns=["text_de"]))
    assert [(each.caption, each.more_captions) for each in german] == [
        ("eine Katze", {}),
        ("ein Hund", {}),
    ]


def test_links_to_folders_elsewhere_are_followed(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.png").write_bytes(png())
    (tmp_path / "there" / "a.txt").write_text("a")
    (tmp_path / "here" / "link").symlink_to(tmp_path / "there")
    assert [record.key for record in read(folder(tmp_path / "here"))[0]] == ["link/a.png"]


def test_drawings_are_listed_as_they_are(tmp_path):
    (tmp_path / "a.svg").write_text("<svg/>")
    (tmp_path / "a.txt").write_text("a drawing")
    assert [record.image for record in read(folder(tmp_path))[0]] == [b"<svg/>"]


@pytest.fixture
def tree(tmp_path):
    """Pictures whose folders' names sort before, between and after their own."""
    for index in range(60):
        path = tmp_path / ("", "a/", "a.b/", "a0/")[index % 4] / f"a{index}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(index))
        path.with_suffix(".txt").write_text(f"picture {index}")
    write_lines(tmp_path / "metadata.csv", "file_name,text", "a0.png,named", "gone.png,missing")
    return folder(tmp_path)


def test_a_folder_gives_the_same_records_however_it_is_cut(tree):
    assert read(tree, 3) == read(tree, 1000)
    records, rejects = read(tree, 3)
    assert len(records) == 60
    assert rejects == [("gone.png", "ingest-image-missing")]


def test_only_the_part_of_a_changed_row_of_the_metadata_gets_another_name(tree):
    before = parts_of(tree, rows_per_part=3)
    write_lines(tree.path / "metadata.csv", "file_name,text", "a0.png,NAMED", "gone.png,missing")
    after = parts_of(tree, before, rows_per_part=3)
    assert len({part.name for part in after} - {part.name for part in before}) == 1
    assert sum(part in before for part in after) == len(after) - 1


def test_a_caption_file_that_changes_is_seen(tree):
    before = parts_of(tree, rows_per_part=3)
    path = tree.path / "a" / "a1.txt"
    path.write_text("PICTURE 1")
    os.utime(path, ns=(0, 0))
    after = parts_of(tree, before, rows_per_part=3)
    assert len({part.name for part in after} - {part.name for part in before}) == 1


def files(root, **contents):
    """Files by their name, in which `__` is the dot of its ending and `_` a slash."""
    for name, content in contents.items():
        path = root / name.replace("__", ".").replace("_", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder(root)


def captions(settings):
    records, rejects = read(settings)
    assert not rejects
    return {record.key: record.caption for record in records}


def test_endings_count_in_any_case(tmp_path):
    files(tmp_path, A__JPG=png(), A__TXT="loud", b__Png=png(), b__Json='{"Caption": "mixed"}')
    assert captions(folder(tmp_path)) == {"A.JPG": "loud", "b.Png": "mixed"}


@pytest.mark.parametrize("name", ["a.caption", "a.TXT", "a.CAP", "a.tags"])
def test_a_recipe_names_other_endings_of_caption_files(tmp_path, name):
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / name).write_text("a cat")
    endings = (".cap", "TAGS", ".caption", "txt")
    assert captions(folder(tmp_path, caption_extensions=endings)) == {"a.png": "a cat"}


def test_an_ending_that_no_caption_file_has_is_named_before_any_work(tmp_path):
    files(tmp_path, a__png=png(), a__txt="a cat", b__mp4="")
    settings = folder(tmp_path, caption_extensions=["cap"])
    with pytest.raises(UserError, match=r"(?s)ends in \.cap .*Not read are: \.mp4, \.txt"):
        parts_of(settings)


def test_json_next_to_a_caption_file_says_whose_the_picture_is(tmp_path):
    notes = {"License": "CC0-1.0", "author": "Ann", "url": "https://x.org/a", "caption": "other"}
    files(tmp_path, a__png=png(), a__txt="a cat", a__json=json.dumps(notes))
    (record,), _ = read(folder(tmp_path))
    assert (record.caption, record.licence, record.attribution, record.origin) == (
        "a cat", "CC0-1.0", "Ann", "https://x.org/a",
    )  # fmt: skip
    before = parts_of(folder(tmp_path))
    files(tmp_path, a__json=json.dumps({**notes, "author": "Bob"}))
    assert parts_of(folder(tmp_path), before)[0].name != before[0].name


def test_columns_are_captions_or_provenance_by_their_names(tmp_path):
    write_lines(
        tmp_path / "metadata.csv",
        "file_name,text,title,url,license,photographer,split,rating",
        "a.png,a flag,Flag,https://x.org/a,CC-BY-4.0,Ann,train,safe",
        "b.png,,Flag,https://x.org/b,CC-BY-4.0,Bob,train,safe",
        "c.png,1984,,,,,train,safe",
    )
    files(tmp_path, a__png=png(1), b__png=png(2), c__png=png(3))
    (a, c), rejects = read(folder(tmp_path, licence="unknown-here", attribution="us"))
    assert (a.caption, a.more_captions, a.licence, a.attribution, a.origin) == (
        "a flag", {"title": "Flag"}, "CC-BY-4.0", "Ann", "https://x.org/a",
    )  # fmt: skip
    assert (c.caption, c.more_captions, c.licence, c.attribution, c.origin) == (
        "1984", {}, "unknown-here", "us", "c.png",
    )  # fmt: skip
    assert rejects == [("b.png", "ingest-no-caption")]


@pytest.mark.parametrize("metadata", [True, False])
def test_a_caption_column_that_nothing_has_is_named_before_any_work(tmp_path, metadata):
    files(tmp_path, a__png=png(), a__json='{"text": "a cat"}')
    if metadata:
        write_lines(tmp_path / "metadata.csv", "file_name,text", "a.png,a cat")
    with pytest.raises(UserError, match=r"(?s)no column 'tex' in .*Did you mean 'text'\?"):
        parts_of(folder(tmp_path, caption_columns=["tex"]))


@pytest.mark.parametrize(
    "row",
    [
        {"file_name": "a.png"},
        {"image": "a.png"},
        {"image_file_name": "a.png"},
        {"Left_File_Name": "a.png"},
        {"images": ["a.png"]},
        {"file_names": ["a.png"]},
        {"file_name": "deep\\..\\a.png"},
        {"image": {"bytes": None, "path": "./a.png"}},
        {"file_name": " %61.png"},
    ],
    ids=str,
)
def test_a_row_of_metadata_names_its_picture_in_many_ways(tmp_path, row):
    files(tmp_path, a__png=png())
    write_json_lines(tmp_path / "metadata.jsonl", {**row, "text": "a cat"})
    assert captions(folder(tmp_path)) == {"a.png": "a cat"}


def test_a_row_that_names_no_file_is_a_reject_that_says_so(tmp_path):
    rows = (
        {"file_names": ["a.png", "b.png"], "text": "two"},
        {"name": "a.png", "text": "one"},
        {"image": "https://x.org/a.png", "text": "one"},
    )
    write_json_lines(tmp_path / "metadata.jsonl", *rows)
    assert [reason for _, reason in read(folder(tmp_path))[1]] == [
        "ingest-several-images", "ingest-no-key", "ingest-image-is-url",
    ]  # fmt: skip


@pytest.mark.parametrize("column", ["file_name", "text", "url"])
def test_metadata_with_two_columns_of_one_name_is_refused_if_it_is_used(tmp_path, column):
    files(tmp_path, a__png=png())
    write_lines(tmp_path / "metadata.csv", "file_name,text,split,split", "a.png,a cat,x,y")
    assert captions(folder(tmp_path)) == {"a.png": "a cat"}
    write_lines(tmp_path / "metadata.csv", f"file_name,text,url,{column}", "a.png,a cat,x,y")
    with pytest.raises(UserError, match=f"has 2 columns named '{column}'"):
        parts_of(folder(tmp_path))


def test_metadata_in_a_subfolder_speaks_of_that_folder_and_counts_before_one_above(tmp_path):
    files(tmp_path, train_a__png=png(1), train_b__png=png(2), c__png=png(3), test_a__png=png(4))
    write_lines(tmp_path / "metadata.csv", "file_name,text", "c.png,top", "train/a.png,far")
    near = {"file_name": "a.png", "text": "near"}, {"file_name": "b.png", "text": "b"}
    write_json_lines(tmp_path / "train" / "metadata.jsonl", *near)
    write_parquet(tmp_path / "test" / "Metadata.Parquet", {"image": ["a.png"], "text": ["test a"]})
    records, rejects = read(folder(tmp_path))
    assert {record.key: record.caption for record in records} == {
        "c.png": "top", "test/a.png": "test a", "train/a.png": "near", "train/b.png": "b",
    }  # fmt: skip
    assert rejects == [("metadata.csv#1", "ingest-duplicate-key")]


def test_metadata_without_captions_leaves_them_to_the_files_next_to_the_pictures(tmp_path):
    files(tmp_path, a__png=png(), a__txt="a cat")
    write_lines(tmp_path / "metadata.csv", "file_name,license", "a.png,CC0-1.0")
    (record,), _ = read(folder(tmp_path))
    assert (record.caption, record.licence) == ("a cat", "CC0-1.0")


def test_a_reject_without_a_caption_says_where_one_was_looked_for(tmp_path):
    files(tmp_path, sub_a__png=png())
    write_lines(tmp_path / "metadata.csv", "file_name,text", "sub/b.png,b")
    source = open_source(folder(tmp_path))
    found = [each for part in source.parts(9, {}) for each in source.read(part)]
    assert {each.detail for each in found} == {
        "there is no a.txt, a.caption or a.json next to it, and no row for it in metadata.csv",
        "there is no file b.png",
    }


def test_what_is_not_read_is_counted_by_its_ending(tmp_path):
    files(
        tmp_path, a__png=png(), a__txt="a", a__caption="b", a__json="{}", orphan__txt="?",
        b__png=png(1), b__txt="unused", film__MP4="", s__wav="", two__zip="", scan__0001="",
        README="", _DS__Store="", Thumbs__db="", deep_x__tar__gz="", metadata__jsonl="",
    )  # fmt: skip
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("")
    write_lines(tmp_path / "metadata.csv", "file_name,text", "b.png,b", "scan.0001,no picture")
    source = open_source(folder(tmp_path))
    list(source.parts(9, {}))
    assert source.unread == {
        ".caption next to another caption file": 1, ".txt without a picture": 1, ".mp4": 1,
        ".txt next to a row of metadata": 1, ".wav (a sound)": 1, ".zip": 1, ".tar.gz": 1,
        "without an ending": 1, ".jsonl next to another metadata file": 1,
    }  # fmt: skip


def test_a_folder_of_sounds_counts_its_pictures(tmp_path):
    files(tmp_path, a__wav="", a__txt="a", b__FLAC="", b__txt="b", c__heic="", d__m4a="")
    source = open_source(SoundsSettings(kind="sounds", path=tmp_path))
    assert sum(part.num_records for part in source.parts(9, {})) == 2
    assert source.unread == {".heic (a picture)": 1, ".m4a": 1}


def test_a_part_is_read_without_listing_the_folder():
    with tempfile.TemporaryDirectory() as made:  # `tmp_path` is below what others may not enter
        root = Path(made)
        settings = files(root, a__png=png(1), a__TXT="a", b__png=png(2))
        write_lines(root / "metadata.csv", "file_name,text", "b.png,b", "gone.png,c")
        source = open_source(settings)
        parts = list(source.parts(1, {}))
        root.chmod(0o711)
        with forbidden_to_root():
            with pytest.raises(PermissionError):
                list(root.iterdir())
            found = [each for part in parts for each in source.read(part)]
        assert [getattr(each, "caption", each.key) for each in found] == ["a", "b", "gone.png"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_rows_of_metadata_are_found_again_where_others_are_put_before_them(tmp_path, suffix):
    def write(names):
        rows = [{"file_name": f"{name}.png", "text": f"picture {name}"} for name in names]
        path = tmp_path / f"metadata.{suffix}"
        match suffix:
            case "csv":
                write_lines(path, "file_name,text", *(",".join(row.values()) for row in rows))
            case "jsonl":
                write_json_lines(path, *rows)
            case _:
                write_parquet(path, {key: [row[key] for row in rows] for key in rows[0]})

    files(tmp_path, **{f"{name}__png": png(ord(name)) for name in "abcdefgh"})
    write("hgfe")
    before = parts_of(folder(tmp_path), rows_per_part=1)
    write("dhcgbf")
    after = parts_of(folder(tmp_path), before, rows_per_part=1)
    source = open_source(folder(tmp_path))
    found = {each.key: each for part in after for each in source.read(part)}
    assert {key: getattr(each, "caption", None) for key, each in found.items()} == {
        f"{name}.png": f"picture {name}" if name in "dhcgbf" else None for name in "abcdefgh"
    }
    unchanged = {part.name for part in before} & {part.name for part in after}
    assert {part.slice["first"] for part in after if part.name in unchanged} == {
        "a.png", "f.png", "g.png", "h.png",
    }  # fmt: skip


def test_a_folder_that_has_moved_keeps_its_parts(tree, tmp_path):
    before = parts_of(tree, rows_per_part=3)
    with tempfile.TemporaryDirectory() as made:
        moved = Path(made) / "elsewhere"
        tmp_path.rename(moved)
        assert parts_of(folder(moved), before, rows_per_part=3) == before
        assert read(folder(moved), 3)[0][0].image_ref.startswith(str(moved))
        moved.rename(tmp_path)


EARLIER = {
    "b587b1ef1034d033": {},
    "b5f6929ba66a2990": {"metadata__csv": "file_name,text\nc/d.png,three\na.png,uno\n"},
}
"""What commit 983332f hashed some files to."""


@pytest.mark.parametrize("content", EARLIER)
def test_parts_of_an_earlier_version_keep_the_names_in_which_the_path_was(tmp_path, content):
    settings = files(tmp_path, a__png=b"1", a__txt="one", b__jpg=b"2", b__json='{"caption": "two"}',
                     c_d__png=b"3", **EARLIER[content])  # fmt: skip
    slice_ = {"path": "/mnt/old", "first": "a.png", "last": "c/d.png", "content": content}
    old = Part.of("folder", slice_, num_records=3, look="another")
    (taken,) = parts_of(settings, [old])
    assert taken.name == old.name
    assert list(open_source(settings).read(taken)) == list(open_source(settings).read(old))
    (tmp_path / "a.txt").touch()
    assert parts_of(settings, [taken]) == [replace(taken, look=parts_of(settings)[0].look)]
