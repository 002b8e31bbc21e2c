import pyarrow as pa
import pytest
from s3fs import S3FileSystem

from pipeline.engine.schemas import DUPLICATES, TABLES
from pipeline.engine.tables import connect, part_path, read_table, write_table

EQUAL = {"duplicate_of": "b", "method": "bytes", "distance": 0.0, "threshold": 0.0, "rule": "-"}
ROWS = [{"record_id": "a", **EQUAL}, {"record_id": "c", **EQUAL}]


def test_a_part_reads_back_as_it_was_written(tmp_path):
    path = part_path(tmp_path / "table", "part-1")
    write_table(path, ROWS, DUPLICATES)
    assert read_table(path).to_pylist() == ROWS
    assert read_table(path, ["record_id"]).column_names == ["record_id"]
    assert [entry.name for entry in path.parent.iterdir()] == ["part-1.parquet"]


def test_the_same_rows_give_the_same_bytes(tmp_path):
    write_table(tmp_path / "a", ROWS, DUPLICATES)
    write_table(tmp_path / "b", pa.Table.from_pylist(ROWS, schema=DUPLICATES), DUPLICATES)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_row_that_does_not_fit_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises((pa.ArrowInvalid, ValueError)):
        write_table(tmp_path / "a", [{"record_id": None, **EQUAL}], DUPLICATES)
    assert not list(tmp_path.iterdir())


def test_every_column_of_every_table_is_described():
    for name, schema in TABLES.items():
        for field in schema:
            assert field.metadata[b"description"], f"{name}.{field.name}"


def test_sql_sees_all_parts_and_their_names(tmp_path):
    for index, row in enumerate(ROWS):
        write_table(part_path(tmp_path, f"p{index}"), [row], DUPLICATES)
    connection = connect({"duplicates": sorted(tmp_path.iterdir()), "rejects": []})
    rows = connection.sql("SELECT part, record_id FROM duplicates ORDER BY ALL").fetchall()
    assert rows == [("p0", "a"), ("p1", "c")]
    assert connection.sql("SELECT count(*) FROM rejects").fetchall() == [(0,)]


def test_a_view_over_a_store_asks_for_listings_and_not_for_each_file(store, monkeypatch):
    paths = [part_path(store.path("view"), f"part-{number}") for number in range(9)]
    for path in paths:
        write_table(path, ROWS, DUPLICATES)
    asked, call = [], S3FileSystem._call_s3

    def count(self, method, *arguments, **how):
        asked.append(method)
        return call(self, method, *arguments, **how)

    monkeypatch.setattr(S3FileSystem, "_call_s3", count)
    assert connect({"duplicates": paths}).sql("SELECT count(*) FROM duplicates").fetchall() == [
        (18,)
    ]
    assert asked.count("list_objects_v2") == 1
    assert "head_object" not in asked
    # What was written since is seen by the next view.
    write_table(paths[0], ROWS[:1], DUPLICATES)
    write_table(part_path(paths[0].parent, "part-new"), ROWS, DUPLICATES)
    later = connect({"duplicates": [*paths, part_path(paths[0].parent, "part-new")]})
    assert later.sql("SELECT count(*) FROM duplicates").fetchall() == [(19,)]
