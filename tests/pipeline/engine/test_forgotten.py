import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.forgotten import Entry, Forgotten, gather, read_forgotten, remember
from pipeline.engine.tables import read_table
from pipeline.errors import UserError

RECORD = {"source": "web", "key": "a/b.png", "record_id": "r1", "image_id": "i1"}


@pytest.mark.parametrize(
    ("entry", "is_covered"),
    [
        (Entry(kind="record", value="r1"), True),
        (Entry(kind="record", value="r"), False),
        (Entry(kind="image-id", value="i1"), True),
        (Entry(kind="source-prefix", value="web/a/"), True),
        (Entry(kind="source-prefix", value="https://example.org/"), True),
        (Entry(kind="source-prefix", value="a/"), False),
    ],
)
def test_what_is_on_the_list_is_covered(tmp_path, entry, is_covered):
    remember(tmp_path, [entry])
    forgotten = read_forgotten(tmp_path)
    assert forgotten.covers(**RECORD, origin="https://example.org/b.png") is is_covered


@given(
    st.lists(st.text("ab/é", min_size=1, max_size=4), max_size=8),
    st.text("ab/é", max_size=6),
    st.one_of(st.none(), st.text("ab/é", max_size=6)),
)
def test_a_name_is_covered_when_any_of_the_prefixes_begins_it(prefixes, key, origin):
    forgotten = gather(Entry(kind="source-prefix", value=prefix) for prefix in prefixes)
    found = forgotten.covers(source="a", key=key, record_id="r", origin=origin)
    names = [f"a/{key}", *([origin] if origin is not None else [])]
    assert found == any(name.startswith(prefix) for name in names for prefix in prefixes)


def test_an_empty_list_covers_nothing(tmp_path):
    assert read_forgotten(tmp_path) == Forgotten()
    assert not Forgotten().covers(**{**RECORD, "image_id": None}, origin=None)


def test_what_is_remembered_twice_is_there_once_with_its_first_time(tmp_path):
    remember(tmp_path, [Entry(kind="record", value="a")])
    first = read_table(tmp_path / "forgotten.parquet").to_pylist()
    remember(tmp_path, [Entry(kind="record", value="b"), Entry(kind="record", value="a")])
    rows = read_table(tmp_path / "forgotten.parquet").to_pylist()
    assert rows[:1] == first
    assert [row["value"] for row in rows] == ["a", "b"]


def test_a_line_of_a_list_names_its_kind_or_is_a_record():
    assert Entry.parse("image-id  ab\n") == Entry(kind="image-id", value="ab")
    assert Entry.parse("source-prefix web/a cat") == Entry(kind="source-prefix", value="web/a cat")
    assert Entry.parse("r1") == Entry(kind="record", value="r1")
    for wrong in ("photo x", "record", ""):
        with pytest.raises(ValueError, match="is none of: image-id X, record X"):
            Entry.parse(wrong)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("record", "cat.png"), ("record", "r1"), ("record", "A" * 16), ("image-id", "ab" * 16)],
)
def test_a_key_or_a_piece_of_an_id_is_refused_instead_of_forgetting_nothing(kind, value):
    with pytest.raises(UserError, match=f"{kind} '{value}': an id has") as error:
        Entry(kind=kind, value=value).require_whole()
    assert "anymix explain" in error.value.hint


def test_whole_ids_and_any_prefix_of_a_source_are_taken():
    for kind, value in [("record", "0a" * 8), ("image-id", "0a" * 32), ("source-prefix", "web/a")]:
        Entry(kind=kind, value=value).require_whole()
