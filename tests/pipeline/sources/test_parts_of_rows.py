"""Parts of sources of rows: what names them, what they cost to read, and what damage does."""

import shutil
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.engine.fingerprint import fingerprint, hash_bytes
from pipeline.engine.parts import Part
from pipeline.references import image_bytes, parquet_reference
from pipeline.sources import (
    HuggingFaceSettings,
    InterleavedSettings,
    TableSettings,
    TextSourceSettings,
    open_source,
)
from tests.pipeline.sources.files import (
    parts_of,
    png,
    read,
    write_json_lines,
    write_lines,
    write_parquet,
)


def sources(root):
    """One of each kind, with its files below `root`."""
    write_lines(root / "t.csv", "caption,image,url", *(f"c{n},{n}.png,https://x/{n}" for n in "ab"))
    write_json_lines(root / "t.jsonl", *({"text": f"text {n}", "id": n} for n in range(25)))
    write_parquet(root / "t.parquet", {"caption": ["one", "two"], "url": ["x", "y"]})
    write_json_lines(root / "d.jsonl", {"texts": ["a", None], "images": [None, "a.png"]})
    write_lines(root / "prose" / "a.txt", "one")
    write_lines(root / "prose" / "b.txt", "two")
    images = {"image_folder": root / "images"}
    return [
        TableSettings(kind="table", path=root / "t.csv", **images),
        TableSettings(kind="table", path=root / "*.parquet", caption_columns=["caption"]),
        TextSourceSettings(kind="text", path=root / "t.jsonl", key_column="id"),
        TextSourceSettings(kind="text", path=root / "prose" / "*.txt"),
        InterleavedSettings(kind="interleaved", path=root / "d.jsonl", **images),
    ]


def test_a_source_that_moves_as_a_whole_keeps_its_parts(tmp_path):
    before = [[part.name for part in parts_of(each)] for each in sources(tmp_path / "here")]
    shutil.copytree(tmp_path / "here", tmp_path / "there")  # with other times, so all is read
    assert [
        [part.name for part in parts_of(each)] for each in sources(tmp_path / "there")
    ] == before


def earlier(settings):
    """The parts as commit 983332f named and remembered them: by the absolute path, too."""
    decides = settings.model_dump(mode="json", exclude={"path"})
    if decides.get("caption_columns", ...) is None:
        decides["caption_columns"] = ["caption"]
    for part in parts_of(settings):
        slice_ = {"path": settings.path.parent.as_posix(), **part.slice, "content": "as it was"}
        look = part.look
        if "files" in slice_:
            slice_ |= {"first": slice_["files"][0], "last": slice_.pop("files")[-1]}
        else:
            file = settings.path.parent / slice_["file"]
            status = file.stat()
            number = look.removeprefix(look.split("-")[0])
            look = (
                fingerprint(
                    file=str(file),
                    status=[status.st_size, status.st_mtime_ns],
                    settings=decides,
                    rows_per_part=10,
                )
                + number
            )
        yield replace(Part.of(part.source, slice_, num_records=part.num_records), look=look)


@pytest.mark.parametrize("number", range(5))
def test_parts_of_an_earlier_version_keep_their_names_and_are_read(tmp_path, number):
    settings = sources(tmp_path)[number]
    known = list(earlier(settings))
    taken_over = parts_of(settings, known)
    assert [part.name for part in taken_over] == [part.name for part in known]
    assert parts_of(settings, taken_over) == taken_over
    of = open_source(settings).read
    found = [record for part in taken_over for record in of(part)]
    assert found == [record for part in parts_of(settings) for record in of(part)]


def test_a_file_that_an_earlier_version_read_in_other_rows_is_read_again(tmp_path):
    path = write_lines(tmp_path / "t.tsv", "n\tcaption", '1\t"one', "2\ttwo")
    settings = TableSettings(kind="table", path=path)
    swallowed = [replace(part, slice=part.slice | {"num_rows": 1}) for part in earlier(settings)]
    assert [part.name for part in parts_of(settings, swallowed)] == [
        part.name for part in parts_of(settings)
    ]
    assert [record.caption for record in read(settings)[0]] == ['"one', "two"]


def test_a_dataset_of_an_earlier_version_keeps_its_parts(tmp_path):
    path = write_parquet(tmp_path / "train.parquet", {"text": ["one"] * 25}, row_group_size=10)
    explicit = {"kind": "huggingface", "path": tmp_path, "image_column": None}
    before = parts_of(HuggingFaceSettings(**explicit, caption_columns=["text"]))
    after = parts_of(HuggingFaceSettings(**explicit), before)
    assert [part.name for part in after] == [part.name for part in before]
    assert path.exists()


def test_parts_of_a_dataset_are_whole_row_groups_and_a_large_one_is_divided(tmp_path):
    settings = HuggingFaceSettings(kind="huggingface", path=tmp_path, image_column=None)
    write_parquet(tmp_path / "train.parquet", {"text": ["one"] * 60}, row_group_size=4)
    assert [part.num_records for part in parts_of(settings)] == [12] * 5
    write_parquet(tmp_path / "train.parquet", {"text": ["one"] * 65})
    assert [part.num_records for part in parts_of(settings)] == [10] * 6 + [5]


def damage(path, group):
    """Overwrite the start of a row group's first column."""
    chunk = pq.read_metadata(path).row_group(group).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content = path.read_bytes()
    path.write_bytes(content[:start] + b"\xff" * 12 + content[start + 12 :])


def test_a_damaged_row_group_of_a_dataset_is_rejects_and_the_others_survive(tmp_path):
    texts = [f"text {n}" for n in range(30)]
    path = write_parquet(tmp_path / "train.parquet", {"text": texts}, row_group_size=10)
    damage(path, 1)
    settings = HuggingFaceSettings(kind="huggingface", path=tmp_path, image_column=None)
    records, rejects = read(settings)
    assert [record.caption for record in records] == texts[:10] + texts[20:]
    assert [reason for _, reason in rejects] == ["ingest-row-unreadable"] * 10


def test_text_of_a_dataset_that_is_not_utf8_is_its_own_fault_only(tmp_path):
    texts = pa.array([b"good", b"gr\xfcn", b"good"], pa.binary()).view(pa.string())
    write_parquet(tmp_path / "train.parquet", {"text": texts})
    settings = HuggingFaceSettings(kind="huggingface", path=tmp_path, image_column=None)
    assert [record.caption for record in read(settings)[0]] == ["good", b"gr\xfcn", "good"]


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_dataset_file_that_is_cut_off_is_a_reject(tmp_path, form):
    dataset = datasets.Dataset.from_dict({"text": ["one"] * 1000})
    if form == "arrow":
        dataset.save_to_disk(tmp_path)
    else:
        dataset.to_parquet(tmp_path / "train.parquet")
    (path,) = tmp_path.glob(f"*.{form}")
    path.write_bytes(path.read_bytes()[:300])
    settings = HuggingFaceSettings(kind="huggingface", path=tmp_path, image_column=None)
    assert read(settings) == ([], [(path.name, "ingest-file-unreadable")])


def test_referenced_images_that_are_asked_for_in_order_are_read_once(tmp_path, monkeypatch):
    cells = [png(number) for number in range(200)]
    path = write_parquet(tmp_path / "t.parquet", {"image": cells}, row_group_size=100)
    decoded = []
    whole = pq.ParquetFile.iter_batches

    def counted(self, *args, **kwargs):
        for batch in whole(self, *args, **kwargs):
            decoded.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    rows = [
        {
            "image_id": hash_bytes(cell),
            "image": None,
            "image_ref": parquet_reference(str(path), column="image", row=number),
        }
        for number, cell in enumerate(cells)
    ]
    for start in range(0, 200, 7):
        assert image_bytes(rows[start : start + 7]) == cells[start : start + 7]
    assert sum(decoded) == 200
    assert image_bytes([rows[150], rows[3], rows[150]]) == [cells[150], cells[3], cells[150]]


def test_a_part_of_text_files_names_its_files_and_lists_no_folder(tmp_path, monkeypatch):
    for number in range(30):
        (tmp_path / f"{number:02d}.txt").write_text(f"text {number}")
    source = open_source(TextSourceSettings(kind="text", path=tmp_path / "*.txt"))
    parts = list(source.parts(10, {}))
    monkeypatch.setattr(Path, "glob", lambda *_: pytest.fail("the folder was listed"))
    found = [record.caption for part in parts for record in source.read(part)]
    assert found == [f"text {number}" for number in range(30)]
