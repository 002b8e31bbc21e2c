"""One test a kind of bad record: a reject with its reason, and its neighbours survive."""

import gzip
import json
import os
import socket
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.sources import (
    FolderSettings,
    InterleavedSettings,
    TableSettings,
    TextSourceSettings,
)
from tests.pipeline.sources.files import (
    forbidden_to_root,
    png,
    read,
    write_json_lines,
    write_lines,
    write_parquet,
)


def table(path, **settings):
    return TableSettings(kind="table", path=path, **settings)


def folder(root, **settings):
    """A folder with a good picture before and after the bad one."""
    for name in ("a", "z"):
        (root / f"{name}.png").write_bytes(png())
        (root / f"{name}.txt").write_text("good")
    return FolderSettings(kind="folder", path=root, **settings)


def picture(root, name="m"):
    path = root / f"{name}.png"
    path.write_bytes(png())
    return path


def csv(root, *lines, **settings):
    return table(write_lines(root / "t.csv", "caption,n", "good,", *lines, "good,"), **settings)


def rows(root, *bad, **settings):
    """JSON lines with a good row before and after the bad ones."""
    good = {"caption": "good", "id": "1"}, {"caption": "good", "id": "2"}
    return table(write_json_lines(root / "t.jsonl", good[0], *bad, good[1]), **settings)


def images(root, *names, **settings):
    (root / "good.png").write_bytes(png())
    named = [{"caption": "good", "image": name} for name in ("good.png", *names, "good.png")]
    return table(write_json_lines(root / "t.jsonl", *named), image_column="image", **settings)


def documents(root, *bad):
    good = {"texts": ["good"], "images": [None]}
    path = write_json_lines(root / "d.jsonl", good, *bad, good)
    return InterleavedSettings(kind="interleaved", path=path)


def ragged(root):
    return csv(root, "one,two,three", "alone")


def unclosed_quote(root):
    return csv(root, chr(34) + "x" * (3 << 20))


def rows_between_two_lone_quotes(root):
    return csv(root, 'odd,"the best', "odd,flag", 'odd,of 10"')


def compressed_file_that_is_cut_off(root):
    rows = [f"{number},good" for number in range(30_000)]
    path = write_lines(root / "t.csv", "n,caption", *rows)
    packed = gzip.compress(path.read_bytes())
    (root / "t.csv.gz").write_bytes(packed[: len(packed) * 2 // 3])
    return table(root / "t.csv.gz")


def compressed_bomb(root):
    good = b'{"caption": "good"}\n' * 2
    (root / "t.jsonl.gz").write_bytes(gzip.compress(good + (b" " * 9999 + b"\n") * 5000))
    return table(root / "t.jsonl.gz")


def json_array_that_is_not_closed(root):
    return table(write_lines(root / "t.json", '[{"caption": "good"}, {"caption": "good"},'))


def invalid_json(root):
    return rows(root, '{"caption": "cut off', "nonsense")


def json_of_another_shape(root):
    return rows(root, [1, 2], "3")


def first_known_caption_that_is_empty(root):
    return rows(root, {"caption": "", "title": "another"})


def null_caption(root):
    return rows(root, {"caption": None}, {"other": "column"})


def caption_of_numbers(root):
    return rows(root, {"caption": 3}, {"caption": ["good", 1.5]})


def null_in_csv(root):
    return csv(root, ",x.png")


def parquet_column_of_the_wrong_type(root):
    (root / "t").mkdir()
    write_parquet(root / "t" / "a.parquet", {"caption": ["good"]})
    write_parquet(root / "t" / "b.parquet", {"caption": [7]})
    write_parquet(root / "t" / "c.parquet", {"caption": ["good"]})
    return table(root / "t" / "*.parquet")


def truncated_parquet(root):
    settings = parquet_column_of_the_wrong_type(root)
    path = write_parquet(root / "t" / "b.parquet", {"caption": ["lost"] * 9})
    path.write_bytes(path.read_bytes()[:-20])
    return settings


def damaged_row_group(root):
    names = pa.array(["good"] * 10 + ["bad"] * 10 + ["good"] * 10)
    path = write_parquet(root / "t.parquet", {"caption": names}, row_group_size=10)
    content = path.read_bytes()
    import pyarrow.parquet as pq

    chunk = pq.read_metadata(path).row_group(1).column(0)
    start = chunk.dictionary_page_offset
    path.write_bytes(content[:start] + b"\xff" * 12 + content[start + 12 :])
    return table(path)


def duplicate_key(root):
    return rows(root, {"caption": "again", "id": "1"}, key_column="id")


def null_key(root):
    return rows(root, {"caption": "nameless", "id": None}, key_column="id")


def key_that_is_a_list(root):
    return rows(root, {"caption": "odd", "id": [1]}, key_column="id")


def missing_image(root):
    return images(root, "gone.png")


def image_with_an_impossible_name(root):
    return images(root, "nul\0.png", "x" * 5000, "\ud800.png")


def image_that_is_an_address(root):
    return images(root, "https://x.example/a.png")


def image_on_a_windows_machine(root):
    return images(root, "C:\\flags\\a.png")


def several_images_in_a_row(root):
    return images(root, ["good.png", "good.png"])


def image_in_base64_that_is_damaged(root):
    return images(root, "iVBORw0KGgo" + "A" * 90 + "=A")


def null_image(root):
    return images(root, None, "")


def image_outside_of_the_folder(root):
    return images(root, "../../secret.png", "/etc/hostname", "a/../../b.png")


def image_of_the_wrong_type(root):
    return images(root, 4)


def image_of_too_many_bytes(root):
    (root / "large.png").write_bytes(png() + b"\0" * 1000)
    return images(root, "large.png", max_image_bytes=900)


def image_that_is_a_pipe(root):
    os.mkfifo(root / "pipe.png")
    return images(root, "pipe.png")


def picture_without_caption(root):
    picture(root)
    return folder(root)


def picture_that_links_to_itself(root):
    (root / "m.png").symlink_to(root / "m.png")
    return folder(root)


def folder_that_holds_itself(root):
    (root / "m").mkdir()
    (root / "m" / "again").symlink_to(root)
    return folder(root)


def link_to_nowhere(root):
    (root / "m.png").symlink_to(root / "nowhere.png")
    return folder(root)


def picture_that_is_a_socket(root):
    os.chdir(root)  # a socket's path may be no longer than 108 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("m.png")
    return folder(root)


def name_that_is_not_utf8(root):
    (root / os.fsdecode(b"m\xff.png")).write_bytes(png())
    return folder(root)


def caption_file_that_is_no_json(root):
    picture(root).with_suffix(".json").write_text("{")
    return folder(root)


def caption_file_without_a_caption(root):
    picture(root).with_suffix(".json").write_text(json.dumps({"width": 3}))
    return folder(root)


def metadata_of_a_missing_file(root):
    write_lines(root / "metadata.csv", "file_name,text", "m.png,gone", "a.png,good")
    return folder(root)


def metadata_without_a_file_name(root):
    write_lines(root / "metadata.csv", "file_name,text", ",whose?", "a.png,good")
    return folder(root)


def metadata_twice(root):
    write_lines(root / "metadata.csv", "file_name,text", "a.png,good", "./a.png,again")
    return folder(root)


def metadata_outside_of_the_folder(root):
    write_json_lines(root / "metadata.jsonl", {"file_name": "../m.png", "text": "x"})
    return folder(root)


def truncated_metadata(root):
    path = write_parquet(root / "metadata.parquet", {"file_name": ["a.png"], "text": ["good"]})
    path.write_bytes(path.read_bytes()[:50])
    return folder(root)


def text_file_that_links_to_nowhere(root):
    for name in ("a", "z"):
        (root / f"{name}.txt").write_text("good")
    (root / "m.txt").symlink_to(root / "nowhere")
    return TextSourceSettings(kind="text", path=root / "*.txt")


def document_of_unequal_lists(root):
    return documents(root, {"texts": ["a", "b"], "images": [None]})


def document_of_another_shape(root):
    return documents(root, {"texts": "a"}, {"segments": [3]}, {"segments": [{"type": "sound"}]})


def document_without_content(root):
    return documents(root, {"texts": [" "], "images": [None]})


def document_picture_without_text(root):
    return documents(root, {"texts": [None], "images": ["a.png"]})


CASES = [
    (ragged, ["ingest-row-ragged"] * 2),
    (unclosed_quote, ["ingest-row-malformed"]),
    (rows_between_two_lone_quotes, ["ingest-row-malformed"]),
    (compressed_file_that_is_cut_off, ["ingest-file-unreadable"]),
    (compressed_bomb, ["ingest-file-unreadable"]),
    (json_array_that_is_not_closed, ["ingest-row-malformed"]),
    (invalid_json, ["ingest-row-malformed"] * 2),
    (json_of_another_shape, ["ingest-row-malformed"] * 2),
    (first_known_caption_that_is_empty, ["ingest-no-caption"]),
    (null_caption, ["ingest-no-caption"] * 2),
    (caption_of_numbers, ["ingest-wrong-type"] * 2),
    (null_in_csv, ["ingest-no-caption"]),
    (parquet_column_of_the_wrong_type, ["ingest-wrong-type"]),
    (truncated_parquet, ["ingest-file-unreadable"]),
    (damaged_row_group, ["ingest-row-unreadable"] * 10),
    (duplicate_key, ["ingest-duplicate-key"]),
    (null_key, ["ingest-no-key"]),
    (key_that_is_a_list, ["ingest-wrong-type"]),
    (missing_image, ["ingest-image-missing"]),
    (image_with_an_impossible_name, ["ingest-image-missing"] * 3),
    (image_that_is_an_address, ["ingest-image-is-url"]),
    (image_on_a_windows_machine, ["ingest-path-outside"]),
    (several_images_in_a_row, ["ingest-several-images"]),
    (image_in_base64_that_is_damaged, ["ingest-image-malformed"]),
    (null_image, ["ingest-no-image"] * 2),
    (image_outside_of_the_folder, ["ingest-path-outside"] * 3),
    (image_of_the_wrong_type, ["ingest-wrong-type"]),
    (image_of_too_many_bytes, ["ingest-image-too-large"]),
    (image_that_is_a_pipe, ["ingest-file-unreadable"]),
    (picture_without_caption, ["ingest-no-caption"]),
    (picture_that_links_to_itself, ["ingest-symlink-loop"]),
    (folder_that_holds_itself, ["ingest-symlink-loop"]),
    (link_to_nowhere, ["ingest-image-missing"]),
    (picture_that_is_a_socket, ["ingest-file-unreadable"]),
    (name_that_is_not_utf8, ["ingest-file-unreadable"]),
    (caption_file_that_is_no_json, ["ingest-caption-malformed"]),
    (caption_file_without_a_caption, ["ingest-no-caption"]),
    (metadata_of_a_missing_file, ["ingest-image-missing"]),
    (metadata_without_a_file_name, ["ingest-no-key"]),
    (metadata_twice, ["ingest-duplicate-key"]),
    (metadata_outside_of_the_folder, ["ingest-path-outside"]),
    (truncated_metadata, ["ingest-file-unreadable"]),
    (text_file_that_links_to_nowhere, ["ingest-file-missing"]),
    (document_of_unequal_lists, ["ingest-document-malformed"]),
    (document_of_another_shape, ["ingest-document-malformed"] * 3),
    (document_without_content, ["ingest-document-empty"]),
    (document_picture_without_text, ["ingest-no-caption"]),
]


@pytest.mark.parametrize(("make", "reasons"), CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_a_bad_record_is_rejected_and_its_neighbours_survive(make, reasons, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records, rejects = read(make(tmp_path))
    assert [reason for _, reason in rejects] == reasons
    # As many good ones come before the bad one as after it.
    assert {record.caption for record in records} == {"good"}
    assert len(records) % 2 == 0
    assert len(records) >= 2


def test_a_forbidden_file_is_a_reject_until_it_is_allowed():
    # Not in `tmp_path`, whose parents only their owner may enter.
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        place.chmod(0o755)
        settings = folder(place)
        path = picture(place)
        path.with_suffix(".txt").write_text("good")
        assert not read(settings)[1]  # also imports what nobody may not
        path.chmod(0)
        with forbidden_to_root():
            assert read(settings)[1] == [("m.png", "ingest-file-unreadable")]


def test_text_that_is_not_utf8_is_handed_on_as_bytes(tmp_path):
    latin = "gr\u00fcn".encode("latin-1")
    (tmp_path / "f").mkdir()
    picture(tmp_path / "f").with_suffix(".txt").write_bytes(latin)
    texts = pa.array([b"good", latin], pa.binary()).view(pa.string())
    sources = [
        FolderSettings(kind="folder", path=tmp_path / "f"),
        table(write_lines(tmp_path / "t.csv", "caption", latin)),
        table(write_lines(tmp_path / "t.jsonl", b'{"caption": "' + latin + b'"}')),
        table(write_parquet(tmp_path / "t.parquet", {"caption": texts})),
        TextSourceSettings(kind="text", path=write_lines(tmp_path / "t.txt", latin)),
    ]
    assert [read(source)[0][-1].caption.strip() for source in sources] == [latin] * len(sources)
