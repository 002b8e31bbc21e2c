"""Folders and tars on a store (here in memory) are read as local ones are."""

import gzip
import io

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.engine.fingerprint import hash_bytes
from pipeline.errors import UserError
from pipeline.references import image_bytes, parquet_reference
from pipeline.sources import FolderSettings, WebDatasetSettings, open_source
from tests.faults.bad_records import pair, tar_of
from tests.pipeline.sources.files import png, read


@pytest.fixture
def put():
    store = fsspec.filesystem("memory")
    yield lambda name, content: store.pipe_file(f"/own-bucket/{name}", content)
    store.rm("/own-bucket", recursive=True)


def test_tars_on_a_store(put):
    put("x/a.tar", tar_of(*pair("a")))
    put("b.tgz", gzip.compress(tar_of(*pair("b"))))
    put("c.zip", b"")
    table = io.BytesIO()
    pq.write_table(pa.table({"key": ["c"], "status": ["failed_to_download"]}), table)
    put("x/a.parquet", table.getvalue())
    settings = WebDatasetSettings(kind="webdataset", path="memory://own-bucket")
    source = open_source(settings)
    assert sum(part.num_records for part in source.parts(9, {})) == 3
    assert source.unread == {".zip": 1}
    records, rejects = read(settings)
    assert rejects == [("x/a.tar/c", "ingest-download-failed")]
    assert [(record.key, record.image_ref) for record in records] == [
        ("b.tgz/b", None),
        ("x/a.tar/a", f"memory://own-bucket/x/a.tar#offset=512&size={len(pair('a')[0][1])}"),
    ]


def test_a_folder_on_a_store(put):
    put("train/a.PNG", png())
    put("train/metadata.jsonl", b'{"file_name": "a.PNG", "text": "a"}\n')
    put("b.png", png(1))
    put("b.TXT", b"b")
    put("c.mp4", b"")
    settings = FolderSettings(kind="folder", path="memory://own-bucket")
    source = open_source(settings)
    assert sum(part.num_records for part in source.parts(9, {})) == 2
    assert source.unread == {".mp4": 1}
    assert [(record.key, record.caption) for record in read(settings)[0]] == [
        ("b.png", "b"),
        ("train/a.PNG", "a"),
    ]


def test_a_referenced_picture_is_found_again_when_its_file_has_been_put_back(put):
    def write(picture):
        table = io.BytesIO()
        pq.write_table(pa.table({"image": [picture]}), table)
        put("a.parquet", table.getvalue())

    place = parquet_reference("memory://own-bucket/a.parquet", column="image", row=0)
    row = {"image": None, "image_ref": place, "image_id": hash_bytes(png())}
    write(png(1))
    with pytest.raises(UserError, match="is not the image that was ingested"):
        image_bytes([row])
    write(png())
    assert image_bytes([row]) == [png()]
