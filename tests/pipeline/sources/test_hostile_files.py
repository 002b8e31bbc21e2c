"""Whatever the bytes of a file are, listing a source never ends the run: it becomes rejects."""

import gzip
import io
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.sources import FolderSettings, TableSettings, WebDatasetSettings, open_source
from pipeline.sources.folder_walk import METADATA
from tests.faults.bad_records import member, pair, tar_of
from tests.pipeline.sources.files import png, read, write_json_lines, write_lines, write_parquet

few = settings(max_examples=80, deadline=None)


def damaged(content, place, junk):
    """The content with some bytes at a place replaced."""
    at = place % max(len(content), 1)
    return content[:at] + junk + content[at + len(junk) :]


def pax_tar():
    """Long names, links and sparse files, as GNU tar and PAX write them."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in pair("n" * 150):
            member(tar, name, content)
        member(tar, "s.png", b"1\n0\n512\n" + bytes(504), pax_headers={
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "512",
        })  # fmt: skip
    return stream.getvalue()


TARS = [tar_of(*pair("a"), *pair("b")), pax_tar(), gzip.compress(tar_of(*pair("a")))]


@few
@given(st.sampled_from(TARS), st.integers(0, 1 << 20), st.binary(min_size=1, max_size=40))
def test_a_damaged_tar_never_ends_the_run(content, place, junk):
    with tempfile.TemporaryDirectory() as made:
        (Path(made) / "a.tar").write_bytes(damaged(content, place, junk))
        read(WebDatasetSettings(kind="webdataset", path=made))


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    """A whole metadata file of each kind."""
    root = tmp_path_factory.mktemp("metadata")
    row = {"file_name": "a.png", "text": "a cat", "license": "CC0-1.0"}
    for name in METADATA:
        path = root / name
        match path.suffix:
            case ".parquet":
                write_parquet(path, {key: [value] * 20 for key, value in row.items()})
            case ".csv" | ".tsv":
                mark = "," if path.suffix == ".csv" else "\t"
                write_lines(path, mark.join(row), *[mark.join(row.values())] * 20)
            case _:
                write_json_lines(path, *[row] * 20)
    return root


@few
@given(st.sampled_from(METADATA), st.integers(0, 1 << 12), st.binary(min_size=1, max_size=40))
def test_damaged_rows_never_end_the_run(metadata, name, place, junk):
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        (root / "a.png").write_bytes(png())
        content = (metadata / name).read_bytes()
        (root / name).write_bytes(damaged(content, place, junk))
        read(FolderSettings(kind="folder", path=root))
        with suppress(UserError):  # a column that is not there any more
            read(TableSettings(kind="table", path=root / name))


@few
@given(st.sampled_from([".txt", ".json", ".caption"]), st.binary(max_size=60))
def test_any_bytes_in_a_sidecar_never_end_the_run(ending, content):
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        (root / "a.png").write_bytes(png())
        (root / f"a{ending}").write_bytes(content)
        records, rejects = read(FolderSettings(kind="folder", path=root))
        assert len(records) + len(rejects) == 1


@pytest.mark.parametrize("rows", [["a.png,A", "b.png,B"], ["a.png,A"]])
def test_no_picture_gets_the_row_of_another_where_metadata_change_during_a_run(tmp_path, rows):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(png())
    write_lines(tmp_path / "metadata.csv", "file_name,text", "b.png,B", "a.png,A")
    source = open_source(FolderSettings(kind="folder", path=tmp_path))
    (part,) = source.parts(9, {})
    write_lines(tmp_path / "metadata.csv", "file_name,text", *rows)
    assert [(each.key, each.reason) for each in source.read(part)] == [
        ("a.png", "ingest-row-malformed"), ("b.png", "ingest-row-malformed"),
    ]  # fmt: skip
