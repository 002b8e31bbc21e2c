import bz2
import errno
import gzip
import lzma
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pydantic import ValidationError

from pipeline.engine.schemas import RECORDS
from pipeline.engine.stage import Work
from pipeline.engine.tables import write_table
from pipeline.errors import UserError
from pipeline.ingest import IngestSettings, IngestWorker
from pipeline.references import image_bytes
from pipeline.sources import WebDatasetSettings, open_source, tar_files
from tests.faults.bad_pictures import PICTURES
from tests.faults.bad_records import TARS, TEXTS, encoded, noise, pair, tar_of
from tests.pipeline.sources.files import forbidden_to_root, parts_of


def ingest(settings, rows_per_part=100, **limits):
    rows, rejects, parts = [], [], list(open_source(settings).parts(rows_per_part, {}))
    worker = IngestWorker(IngestSettings(**limits), {})
    for part in parts:
        extra = {"part": asdict(part), "source": settings.model_dump(mode="json")}
        output = worker(Work(part=part.name, extra=extra))
        rows += output.rows
        rejects += output.rejects
    whole = [row for row in rejects if row["variant_id"] is None]
    assert sum(part.num_records for part in parts) == len(rows) + len(whole)
    assert len({row["record_id"] for row in [*rows, *whole]}) == len(rows) + len(whole)
    return rows, rejects


def source(tmp_path, content, **settings):
    (tmp_path / "00000.tar").write_bytes(content)
    return WebDatasetSettings(kind="webdataset", path=tmp_path, **settings)


@pytest.mark.parametrize("bad", TARS, ids=lambda bad: bad.name)
def test_a_bad_tar_gives_rejects_and_never_stops(bad, tmp_path):
    (tmp_path / "good.tar").write_bytes(tar_of(*pair("good")))
    rows, rejects = ingest(source(tmp_path, bad.make()))
    assert {row["reason"] for row in rejects} == {bad.reason}
    assert "good.tar/good" in {row["key"] for row in rows}


def test_all_bad_pictures_and_texts_end_in_a_record_or_one_reject(tmp_path):
    members = []
    for number, bad in enumerate([*PICTURES, *TEXTS]):
        content = bad.make()
        is_picture = bad in PICTURES
        is_svg = is_picture and content[:4] == b"<svg"
        text = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        members.append((f"{number:03d}.{'svg' if is_svg else 'jpg'}",
                        content if is_picture else encoded(noise())))  # fmt: skip
        members.append((f"{number:03d}.txt", b"a caption" if is_picture else text))
    settings = source(tmp_path, tar_of(*members))
    rows, rejects = ingest(settings, rows_per_part=7)
    # A lone surrogate has no UTF-8, so in a file of bytes it is a reject.
    assert len(rejects) == sum(bad.reason is not None for bad in [*PICTURES, *TEXTS]) + 1
    write_table(tmp_path / "records.parquet", rows, RECORDS)


def test_folders_in_keys_are_kept_and_two_tars_may_use_one_key(tmp_path):
    (tmp_path / "00001.tar").write_bytes(tar_of(*pair("./train/a")))
    rows, _ = ingest(source(tmp_path, tar_of(*pair("train/a"))))
    assert [row["key"] for row in rows] == ["00000.tar/train/a", "00001.tar/train/a"]


def test_several_captions_are_kept_and_a_bad_one_is_a_reject_of_its_own(tmp_path):
    content = tar_of(*pair("a"), ("a.de.txt", b"Rauschen"), ("a.fr.txt", b"\xff"))
    settings = source(tmp_path, content, caption_columns=("txt", "de.txt", "fr.txt"))
    (row,), (reject,) = ingest(settings)
    assert row["more_captions"] == [{"name": "de.txt", "text": "Rauschen"}]
    assert reject["variant_id"] == "original-fr.txt"
    assert reject["reason"] == "ingest-caption-not-utf-8"


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("text", "txt"), ("json:captoin", "json:caption"), ("de.txt", "txt")]
)
def test_a_caption_column_that_no_sample_has_is_named_before_any_work(tmp_path, wrong, nearest):
    content = tar_of(*pair("a"), ("a.json", b'{"caption": "noise", "url": "https://x.org"}'))
    settings = source(tmp_path, content, caption_columns=("txt", wrong))
    (tmp_path / "00001.tar").write_bytes(tar_of(*pair("b")))
    with pytest.raises(UserError) as error:
        list(open_source(settings).parts(5, {}))
    assert f"source 'webdataset': there is no column {wrong!r} in {tmp_path}" in str(error.value)
    assert f"Did you mean {nearest!r}? The columns are " in str(error.value)


def test_one_tar_without_a_caption_column_is_rejects(tmp_path):
    (tmp_path / "00001.tar").write_bytes(tar_of(*pair("b"), ("b.json", b'{"caption": "noise"}')))
    settings = source(tmp_path, tar_of(*pair("a")), caption_columns=("json:caption",))
    rows, rejects = ingest(settings)
    assert [row["key"] for row in rows] == ["00001.tar/b"]
    assert [row["reason"] for row in rejects] == ["ingest-no-caption"]


PICTURE = encoded(noise())
CAPTION = b"a picture of noise"


@pytest.mark.parametrize(
    ("files", "settings"),
    [
        ({"a.JPG": PICTURE, "a.TXT": CAPTION}, {}),
        ({"0.input.png": PICTURE, "0.outputs.txt": CAPTION}, {}),
        ({"k.1.png": PICTURE, "k.txt": CAPTION}, {}),
        ({"0.a.png": PICTURE, "0.b.png": b"?", "0.txt": CAPTION}, {"image_columns": ["A.png"]}),
        ({"a.png": PICTURE, "a.caption": CAPTION}, {}),
        ({"a.png": PICTURE, "a.json": b'["a picture of noise"]'}, {}),
        ({"a.png": PICTURE, "a.json": b'{"captions": ["a picture of noise"], "id": 3}'}, {}),
        ({"a.png": PICTURE, "a.json": b'{"url": "x.org", "Caption": "a picture of noise"}'}, {}),
        ({"a.png": PICTURE, "a.json": '{"text": "a picture of noise"}'.encode("utf-16")}, {}),
        ({"a.png": PICTURE, "a.json": b'{"alt": [null, "a picture of noise"]}'},
         {"caption_columns": ["json:alt"]}),
        ({"a.png": PICTURE, "a.txt": CAPTION, "a.json": b'{"txt": null}'},
         {"caption_columns": ["txt", "json:txt"]}),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_sample_is_found_however_its_files_are_named(tmp_path, files, settings):
    (row,), rejects = ingest(source(tmp_path, tar_of(*files.items()), **settings))
    assert (row["caption"], row["more_captions"], rejects) == ("a picture of noise", [], [])


def test_licence_author_and_url_come_from_the_json_by_known_names(tmp_path):
    notes = b'{"License": "CC-BY-4.0", "photographer": "Ann", "URL": "https://x.org", "split": "a"}'
    (row,), _ = ingest(source(tmp_path, tar_of(*pair("a"), ("a.json", notes))))
    assert (row["licence"], row["attribution"], row["origin"]) == (
        "CC-BY-4.0", "Ann", "https://x.org",
    )  # fmt: skip
    assert row["more_captions"] == []


def test_an_image_column_that_no_sample_has_is_named_before_any_work(tmp_path):
    settings = source(tmp_path, tar_of(*pair("a")), image_columns=("input.jpg", "input.png"))
    with pytest.raises(UserError, match=r"there is no column 'input.jpg' or 'input.png'"):
        list(open_source(settings).parts(5, {}))


@pytest.mark.parametrize("name", ["00001.tar", "00001.tar.gz", "00001.TGZ", "00001.tar.bz2"])
@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_a_compressed_tar_is_read_whatever_its_name_says(tmp_path, name, compress):
    whole = tar_of(*(file for n in range(30) for file in pair(f"{n:02d}")))
    (tmp_path / name).write_bytes(compress(whole))
    settings = source(tmp_path, tar_of(*pair("a")))
    rows, rejects = ingest(settings, rows_per_part=5, images="reference")
    assert [row["key"] for row in rows] == [
        "00000.tar/a", *(f"{name}/{n:02d}" for n in range(30)),
    ]  # fmt: skip
    assert not rejects
    assert image_bytes(rows) == [PICTURE] * 31
    assert all((row["image"] is None) == (compress is bytes) for row in rows[1:])


def test_a_change_in_a_compressed_tar_renames_only_the_part_that_it_is_in(tmp_path):
    def write(last):
        files = [file for n in range(30) for file in pair(f"{n:02d}")][:-1]
        (tmp_path / "a.tgz").write_bytes(gzip.compress(tar_of(*files, ("29.txt", last))))
        return {part.name for part in open_source(settings).parts(5, {})}

    settings = source(tmp_path, tar_of(*pair("a")))
    before = write(b"one")
    assert len(before) > 3
    assert len(write(b"two") - before) == 1


def test_what_lies_before_the_break_of_a_compressed_tar_is_read(tmp_path):
    whole = gzip.compress(tar_of(*pair("a"), ("b.png", encoded(noise(size=(300, 300))))))
    rows, rejects = ingest(source(tmp_path, whole[: len(whole) // 2]))
    assert [row["key"] for row in rows] == ["00000.tar/a"]
    assert {row["reason"] for row in rejects} == {"ingest-tar-truncated"}


@pytest.mark.parametrize("path", ["*.tar", "a-{0..9}.tar", "gone"])
def test_a_path_that_is_not_there_is_said(tmp_path, path):
    with pytest.raises(ValidationError, match="there is no tar"):
        WebDatasetSettings(kind="webdataset", path=tmp_path / path)


def test_a_tar_that_unpacks_to_far_too_much_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_files, "_MIN_LIMIT_BYTES", 1 << 20)
    bomb = tar_of(*pair("a"), ("b.png", bytes(8 << 20)))
    (tmp_path / "bomb.tgz").write_bytes(gzip.compress(bomb))
    rows, rejects = ingest(source(tmp_path, tar_of(*pair("a"))))
    assert [row["key"] for row in rows] == ["00000.tar/a", "bomb.tgz/a"]
    assert {row["reason"] for row in rejects} == {"ingest-tar-truncated", "ingest-tar-too-large"}


def test_what_is_not_read_is_counted_by_its_ending(tmp_path):
    content = tar_of(
        *pair("a"), ("a.cls", b"3"), ("a.seg.png", b""), ("README", b""), ("__meta.x__", b""),
        *pair("b"), ("b.cls", b"4"), (".DS_Store", b""),
    )  # fmt: skip
    for name in ("a.zip", "b.zip", "00000_stats.json", "notes", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    pq.write_table(pa.table({"key": ["c"], "status": ["failed"]}), tmp_path / "00000.parquet")
    opened = open_source(source(tmp_path, content))
    known = {part.look: part for part in opened.parts(1, {})}
    expected = {
        ".zip": 2, ".json": 1, "without an ending": 1, ".cls in tars": 2, ".png in tars": 1,
        "without an ending outside of any sample": 1, ".x__ outside of any sample": 1,
    }  # fmt: skip
    assert opened.unread == expected
    # The second time the tar is not opened.
    assert {part.look: part for part in opened.parts(1, known)} == known
    assert opened.unread == expected


def test_linked_folders_of_tars_are_read_and_links_back_are_not_followed(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (there / "b.tar").write_bytes(tar_of(*pair("b")))
    (there / "back").symlink_to(here)
    for name in ("link", "another"):
        (here / name).symlink_to(there)
    rows, _ = ingest(source(here, tar_of(*pair("a"))))
    assert [row["key"] for row in rows] == ["00000.tar/a", "another/b.tar/b", "link/b.tar/b"]


def test_tars_whose_folder_may_only_be_listed_are_rejects():
    with tempfile.TemporaryDirectory() as made:  # `tmp_path` is below what others may not enter
        root = Path(made)
        settings = source(root, tar_of(*pair("a")))
        root.chmod(0o744)
        with forbidden_to_root():
            opened = open_source(settings)
            found = [each for part in opened.parts(5, {}) for each in opened.read(part)]
        assert [each.reason for each in found] == ["ingest-file-unreadable"]


def test_a_tar_is_not_taken_for_what_the_name_of_its_first_file_looks_like(tmp_path):
    rows, rejects = ingest(source(tmp_path, tar_of(*pair("BZh9"), *pair("Rar!"))))
    assert ([row["key"] for row in rows], rejects) == (["00000.tar/BZh9", "00000.tar/Rar!"], [])


def test_parts_that_read_nothing_new_keep_the_name_that_an_earlier_version_gave(tmp_path):
    """Commit 983332f gave the first name; where more is read than it read, the name is another."""
    settings = source(tmp_path, tar_of(("0.png", b"1"), ("0.txt", b"zero"), ("1.png", b"2")))
    assert [part.name for part in parts_of(settings)] == ["webdataset-4f0fc22b9576a8d6"]
    content = tar_of(("0.png", b"1"), ("0.txt", b"zero"), ("1.png", b"2"), ("1.json", b"{}"))
    (part,) = parts_of(source(tmp_path, content))
    assert part.slice["reads"] == ["json"]


def test_what_img2dataset_failed_at_is_a_reject(tmp_path):
    status = pa.table({
        "key": ["a", "b", "c"],
        "status": ["success", "failed_to_download", "failed_to_download"],
        "error_message": [None, "HTTP 404", "Use of image disallowed by X-Robots-Tag directive"],
    })  # fmt: skip
    pq.write_table(status, tmp_path / "00000.parquet")
    rows, rejects = ingest(source(tmp_path, tar_of(*pair("a"))))
    assert len(rows) == 1
    assert [row["reason"] for row in rejects] == ["ingest-download-failed", "ingest-opted-out"]


def test_opt_outs_are_kept_where_the_recipe_says_so(tmp_path):
    content = tar_of(*pair("a"), ("a.json", b'{"headers": {"X-Robots-Tag": "noai"}}'))
    (row,), _ = ingest(source(tmp_path, content), opt_outs="keep")
    assert row["opt_outs"] == ["x-robots-tag:noai"]


def test_a_referenced_image_is_read_where_it_lies(tmp_path):
    settings = source(tmp_path, tar_of(*pair("a"), *pair("b")))
    rows, _ = ingest(settings, images="reference")
    assert {row["image"] for row in rows} == {None}
    assert image_bytes(rows) == [encoded(noise())] * 2
    (tmp_path / "00000.tar").write_bytes(tar_of(("a.png", encoded(noise("L")))) + bytes(9000))
    with pytest.raises(UserError, match="not the image that was ingested"):
        image_bytes(rows)


def test_a_referenced_image_that_is_gone_is_a_clear_error(tmp_path):
    rows, _ = ingest(source(tmp_path, tar_of(*pair("a"))), images="reference")
    (tmp_path / "00000.tar").unlink()
    with pytest.raises(UserError, match="cannot be used"):
        image_bytes(rows)


def test_only_the_parts_of_a_changed_tar_get_another_name(tmp_path):
    settings = source(tmp_path, tar_of(*(file for n in range(30) for file in pair(f"{n:02d}"))))
    (tmp_path / "00001.tar").write_bytes(tar_of(*pair("a")))
    before = list(open_source(settings).parts(5, {}))
    (tmp_path / "00001.tar").write_bytes(tar_of(*pair("b")))
    known = {part.look: part for part in before}
    after = list(open_source(settings).parts(5, known))
    assert len(before) > 3
    assert [part.name for part in after[:-1]] == [part.name for part in before[:-1]]
    assert after[-1].name != before[-1].name


def test_a_tar_that_cannot_be_opened_is_a_reject(tmp_path):
    (tmp_path / "loop.tar").symlink_to("loop.tar")
    (tmp_path / "folder.tar").mkdir()
    (tmp_path / os.fsdecode(b"a\xff.tar")).write_bytes(tar_of(*pair("a")))
    rows, rejects = ingest(source(tmp_path, tar_of(*pair("a"))))
    assert len(rows) == 1
    assert sorted(row["reason"] for row in rejects) == [
        "ingest-file-unreadable", "ingest-image-missing", "ingest-symlink-loop",
    ]  # fmt: skip


class DeadStore(MemoryFileSystem):
    protocol = "dead"

    def _open(self, path, *_, **__):
        raise OSError(errno.EIO, "503 Slow Down", path)


def test_a_store_that_fails_is_not_taken_for_a_lost_picture():
    fsspec.register_implementation("dead", DeadStore, clobber=True)
    row = {"image_id": "0", "image": None, "image_ref": "dead://bucket/a.tar#offset=0&size=9"}
    with pytest.raises(OSError, match="503 Slow Down"):
        image_bytes([row])
