"""Tables, texts and documents as they should be."""

import io
import json

import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipeline.errors import UserError
from pipeline.sources import InterleavedSettings, TableSettings, TextSourceSettings
from tests.pipeline.sources.files import (
    parts_of,
    png,
    read,
    write_json_lines,
    write_lines,
    write_parquet,
)


def table(path, **settings):
    return TableSettings(kind="table", path=path, **settings)


def texts(path, **settings):
    return TextSourceSettings(kind="text", path=path, **settings)


def documents(path, **settings):
    return InterleavedSettings(kind="interleaved", path=path, **settings)


def captions(settings, rows_per_part=100):
    return [record.caption for record in read(settings, rows_per_part)[0]]


@pytest.fixture
def many(tmp_path):
    """The same 50 rows in every format, some of them with line breaks and quotes in a field."""
    rows = [f'row {index}\n"quoted", {index % 7}' for index in range(50)]
    quoted = ['"' + row.replace('"', '""') + '"' for row in rows]
    write_lines(tmp_path / "t.csv", "caption,n", *(f"{row},{n}" for n, row in enumerate(quoted)))
    write_lines(tmp_path / "t.tsv", "caption\tn", *(f"{row}\t{n}" for n, row in enumerate(quoted)))
    write_json_lines(tmp_path / "t.jsonl", *({"caption": row} for row in rows))
    write_parquet(tmp_path / "t.parquet", {"caption": rows}, row_group_size=9)
    return tmp_path, rows


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("rows_per_part", [1, 4, 7, 1000])
def test_a_table_gives_the_same_rows_however_it_is_cut(many, suffix, rows_per_part):
    root, rows = many
    assert captions(table(root / f"t.{suffix}"), rows_per_part) == rows
    keys = [record.key for record in read(table(root / f"t.{suffix}"), rows_per_part)[0]]
    assert keys == [f"t.{suffix}#{index}" for index in range(50)]


def test_a_parquet_part_is_whole_row_groups_and_a_large_one_is_divided(tmp_path):
    small = table(write_parquet(tmp_path / "s.parquet", {"caption": ["x"] * 60}, row_group_size=4))
    large = table(write_parquet(tmp_path / "l.parquet", {"caption": ["x"] * 60}))
    assert [part.num_records for part in parts_of(small)] == [12] * 5
    assert [part.num_records for part in parts_of(large)] == [10] * 6


def test_lines_and_byte_order_marks_of_other_systems_are_read(tmp_path):
    (tmp_path / "w.csv").write_bytes(b"\xef\xbb\xbfcaption,n\r\none,1\r\n\r\ntwo,2")
    assert captions(table(tmp_path / "w.csv")) == ["one", "two"]


def test_columns_name_key_licence_attribution_and_origin(tmp_path):
    row = {"caption": "c", "id": 7, "rights": "CC0-1.0", "who": "Ann", "url": "https://x.org/7"}
    path = write_json_lines(tmp_path / "t.jsonl", row, {"caption": "d", "id": "e"})
    settings = table(
        path, key_column="id", licence_column="rights", attribution_column="who",
        origin_column="url", licence="CC-BY-4.0",
    )  # fmt: skip
    first, second = read(settings)[0]
    assert (first.key, first.licence, first.attribution, first.origin) == (
        "t.jsonl#7", "CC0-1.0", "Ann", "https://x.org/7",
    )  # fmt: skip
    assert (second.key, second.licence, second.origin) == ("t.jsonl#e", "CC-BY-4.0", "t.jsonl#e")


def test_several_columns_and_lists_are_several_captions(tmp_path):
    rows = [
        {"en": "a cat", "de": "eine Katze", "short": ["cat", "kitten", None]},
        {"en": None, "de": "ein Hund", "short": None},
    ]
    path = write_json_lines(tmp_path / "t.jsonl", *rows)
    cat, dog = read(table(path, caption_columns=["en", "de", "short"]))[0]
    assert cat.caption == "a cat"
    assert cat.more_captions == {"de": "eine Katze", "short": "cat", "short-1": "kitten"}
    assert (dog.caption, dog.more_captions) == ("ein Hund", {})


def test_images_are_paths_beside_the_file_or_in_their_own_folder(tmp_path):
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / "a.png").write_bytes(png(1))
    path = write_lines(tmp_path / "t.csv", "caption,image", "one,i/a.png")
    other = write_lines(tmp_path / "u.csv", "caption,image", f"one,{tmp_path}/i/a.png", "two,a.png")
    (record,), _ = read(table(path, image_column="image"))
    assert (record.image, record.image_ref) == (png(1), f"{tmp_path}/i/a.png")
    moved, _ = read(table(other, image_column="image", image_folder=tmp_path / "i"))
    assert [each.image for each in moved] == [png(1)] * 2


def test_images_are_bytes_or_structs_of_bytes_and_path(tmp_path):
    (tmp_path / "b.png").write_bytes(png(2))
    plain = write_parquet(tmp_path / "plain.parquet", {"caption": ["a"], "image": [png(1)]})
    cells = [{"bytes": png(1), "path": "a.png"}, {"bytes": None, "path": "b.png"}]
    struct = write_parquet(tmp_path / "struct.parquet", {"caption": ["a", "b"], "image": cells})
    (record,), _ = read(table(plain, image_column="image"))
    assert (record.image, record.image_ref) == (png(1), None)
    held, named = read(table(struct, image_column="image"))[0]
    assert (held.image, held.image_ref) == (png(1), None)
    assert (named.image, named.image_ref) == (png(2), f"{tmp_path}/b.png")


@pytest.fixture(params=["csv", "jsonl", "parquet"])
def files(request, tmp_path):
    """Ten files of 30 rows."""
    for number in range(10):
        rows = [f"file {number} row {index}" for index in range(30)]
        path = tmp_path / f"{number}.{request.param}"
        match request.param:
            case "csv":
                write_lines(path, "caption", *rows)
            case "jsonl":
                write_json_lines(path, *({"caption": row} for row in rows))
            case _:
                write_parquet(path, {"caption": rows}, row_group_size=10)
    return table(tmp_path / f"*.{request.param}")


def test_files_that_look_the_same_are_not_opened_again(files, monkeypatch):
    before = parts_of(files)
    assert len(before) == 30

    def refuse(*_args, **_kwargs):
        pytest.fail("a file was opened")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    monkeypatch.setattr(io, "open", refuse)
    assert parts_of(files, before) == before


def test_only_the_parts_of_a_changed_file_get_other_names(files):
    before = {part.name for part in parts_of(files)}
    changed = sorted(files.path.parent.iterdir())[3]
    if changed.suffix == ".parquet":
        write_parquet(changed, {"caption": ["new"] * 30}, row_group_size=10)
    else:
        changed.write_bytes(changed.read_bytes().replace(b"row 5", b"ROW 5"))
    after = {part.name for part in parts_of(files, parts_of(files))}
    assert len(after - before) == len(before - after) <= 3


def test_rows_that_are_appended_change_only_the_last_part(tmp_path):
    path = write_lines(tmp_path / "t.csv", "caption", *map(str, range(25)))
    before = {part.name for part in parts_of(table(path))}
    with path.open("a") as stream:
        stream.write("25\n26\n")
    assert len({part.name for part in parts_of(table(path))} - before) == 1


def test_columns_that_are_not_used_do_not_name_a_part(tmp_path):
    path = write_parquet(tmp_path / "t.parquet", {"caption": ["a"], "other": ["b"]})
    before = [part.name for part in parts_of(table(path))]
    write_parquet(path, {"caption": ["a"], "other": ["changed"]})
    assert [part.name for part in parts_of(table(path))] == before


def test_keys_are_checked_over_a_whole_file_and_not_beyond(tmp_path):
    rows = [{"caption": f"{index}", "id": index % 20} for index in range(40)]
    write_json_lines(tmp_path / "a.jsonl", *rows)
    write_json_lines(tmp_path / "b.jsonl", *rows)
    settings = table(tmp_path / "*.jsonl", key_column="id")
    records, rejects = read(settings, 5)
    assert [record.caption for record in records] == [str(index) for index in range(20)] * 2
    assert {reason for _, reason in rejects} == {"ingest-duplicate-key"}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_column_that_no_file_has_is_named_with_the_nearest_before_any_work(tmp_path, suffix):
    for number in range(2):
        path = tmp_path / f"{number}.{suffix}"
        match suffix:
            case "csv":
                write_lines(path, "caption,picture", "one,1.png")
            case "tsv":
                write_lines(path, "caption\tpicture", "one\t1.png")
            case "jsonl":
                write_json_lines(path, {"caption": "one"}, {"caption": "two", "picture": None})
            case _:
                write_parquet(path, {"caption": ["one"], "picture": ["1.png"]})
    with pytest.raises(UserError) as error:
        parts_of(table(tmp_path / f"*.{suffix}", name="pairs", image_column="pictrue"))
    assert str(error.value) == (
        f"source 'pairs': there is no column 'pictrue' in {tmp_path}/*.{suffix}\n"
        "Did you mean 'picture'? The columns are caption, picture."
    )


def test_one_file_without_a_column_is_rejects(tmp_path):
    write_lines(tmp_path / "a.csv", "text", "one")
    write_lines(tmp_path / "b.csv", "caption", "two")
    records, rejects = read(table(tmp_path / "*.csv", caption_columns=["caption"]))
    assert [record.caption for record in records] == ["two"]
    assert rejects == [("a.csv#0", "ingest-no-caption")]


def test_columns_are_looked_for_in_headers_and_not_in_what_cannot_be_read(tmp_path):
    write_parquet(tmp_path / "a.parquet", {"text": ["one"]})
    path = tmp_path / "a.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert read(table(tmp_path / "*.parquet"))[1] == [("a.parquet", "ingest-file-unreadable")]
    write_json_lines(tmp_path / "empty.jsonl")
    assert parts_of(table(tmp_path / "empty.jsonl")) == []


def test_a_rare_key_of_json_lines_need_not_be_in_the_first(tmp_path):
    rows = [{"caption": f"{index}"} for index in range(900)]
    path = write_json_lines(tmp_path / "t.jsonl", *rows, {"caption": "last", "rights": "CC0-1.0"})
    records, _ = read(table(path, licence_column="rights"))
    assert [record.licence for record in records[-2:]] == ["unknown", "CC0-1.0"]


def test_a_document_needs_either_way_of_writing_it(tmp_path):
    path = write_json_lines(tmp_path / "d.jsonl", {"text": ["one"], "images": [None]})
    with pytest.raises(UserError, match="no column 'segments' or 'texts' in"):
        parts_of(documents(path))


@pytest.mark.parametrize("name", ["gone.csv", "gone/*.csv", ".", "t.xlsx"])
def test_a_path_without_files_of_rows_is_refused_with_the_recipe(tmp_path, name):
    (tmp_path / "t.xlsx").write_bytes(b"")
    with pytest.raises(ValidationError, match=r"there is no|is a folder|does not end in"):
        table(tmp_path / name)


def test_a_glob_without_files_is_an_error_that_names_it(tmp_path):
    with pytest.raises(UserError, match=r"no file matches .*csv"):
        parts_of(table(tmp_path / "*.csv"))


def test_text_files_are_records_whole_or_by_paragraph(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n  \ntwo\nlines\n\n\n")
    (tmp_path / "b.txt").write_text("three")
    whole = texts(tmp_path / "*.txt")
    assert captions(whole, 1) == captions(whole) == ["one\n\n  \ntwo\nlines", "three"]
    paragraphs = texts(tmp_path / "*.txt", per="paragraph")
    assert captions(paragraphs, 1) == captions(paragraphs) == ["one", "two\nlines", "three"]


def test_only_the_run_of_a_changed_text_file_is_read_again(tmp_path):
    for number in range(200):
        (tmp_path / f"{number:03d}.txt").write_text(f"text {number}")
    before = parts_of(texts(tmp_path / "*.txt"))
    (tmp_path / "077.txt").write_text("another text")
    after = parts_of(texts(tmp_path / "*.txt"), before)
    assert len({part.name for part in after} - {part.name for part in before}) == 1


def test_text_comes_from_a_column(tmp_path):
    path = write_parquet(tmp_path / "t.parquet", {"body": ["one", "two"], "id": ["x", "y"]})
    records, _ = read(texts(path, text_column="body", key_column="id"))
    assert [(each.key, each.caption) for each in records] == [
        ("t.parquet#x", "one"),
        ("t.parquet#y", "two"),
    ]


DOCUMENT = [
    ("text", "Before."),
    ("image", "a.png"),
    ("text", "Beside a."),
    ("image", "gone.png"),
    ("text", "Beside gone."),
    ("text", "After."),
]


@pytest.mark.parametrize("layout", ["lists", "segments", "parquet"])
def test_a_document_is_pictures_with_their_texts_in_order(tmp_path, layout):
    (tmp_path / "a.png").write_bytes(png(1))
    lists = {
        name: [value if kind == name[:-1] else None for kind, value in DOCUMENT]
        for name in ("texts", "images")
    }
    match layout:
        case "lists":
            path = write_json_lines(tmp_path / "d.jsonl", lists)
        case "segments":
            segments = [{"type": kind, kind: value} for kind, value in DOCUMENT]
            path = write_json_lines(tmp_path / "d.jsonl", {"segments": segments})
        case _:
            path = write_parquet(tmp_path / "d.parquet", pa.Table.from_pylist([lists]))
    records, rejects = read(documents(path))
    key = f"{path.name}#0"
    assert [(each.position, each.caption, each.image_ref) for each in records] == [
        (0, "Before.", None),
        (1, "Beside a.", f"{tmp_path}/a.png"),
        (3, "After.", None),
    ]
    assert {each.document for each in records} == {key}
    assert rejects == [(f"{key}/2", "ingest-image-missing")]


def test_a_document_is_never_cut(tmp_path):
    rows = [{"texts": ["one", "two", "three"], "images": [None] * 3} for _ in range(8)]
    path = write_json_lines(tmp_path / "d.jsonl", *rows)
    parts = parts_of(documents(path), rows_per_part=4)
    assert [part.num_records for part in parts] == [6, 6, 6, 6]
    assert json.dumps([part.slice for part in parts])
