"""A folder of pictures: where captions may stand, and what a change touches."""

import json
import os

import pytest

from pipeline.sources import FolderSettings
from tests.pipeline.sources.files import parts_of, png, read, write_lines, write_parquet


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
        "de": ["eine Katze", "ein Hund"],
        "file_name": ["deep/cat.png", "dog.png"],
        "text": ["a cat", "a dog"],
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
        ("deep/cat.png", "a cat", {"de": "eine Katze"}),
        ("dog.png", "a dog", {"de": "ein Hund"}),
    ]
    assert not rejects
    german, _ = read(folder(tmp_path, caption_columns=["de"]))
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
