import pytest

from filters.shared_captions import CAPTIONS_FILE, SharedCaptions, fit
from pipeline.engine.schemas import RECORDS
from pipeline.engine.stage import FitInputs
from pipeline.engine.tables import part_path, read_table, write_table
from pipeline.settings import Settings

RECORD = {field.name: None if field.nullable else "x" for field in RECORDS} | {
    "more_captions": [], "repairs": [], "opt_outs": [],
}  # fmt: skip


@pytest.fixture
def counted(tmp_path):
    """The folder of the captions that were counted over two parts."""
    german = [{"name": "de", "text": "Bildrechte"}, {"name": "fr", "text": "a cat"}]
    parts = {
        "p": [("1", "A", "stock photo", []), ("2", "B", "stock photo", german)],
        "q": [
            ("3", "C", "stock photo", german),
            ("4", "C", "a copy of the same image", []),
            ("5", "C", "a copy of the same image", []),
            ("6", None, "a cat", []),
        ],
    }
    names = ("record_id", "image_id", "caption", "more_captions")
    for part, rows in parts.items():
        records = [RECORD | dict(zip(names, row, strict=True)) for row in rows]
        write_table(part_path(tmp_path, part), records, RECORDS)
    inputs = FitInputs(tables={"records": sorted(tmp_path.glob("*.parquet"))}, models={})
    (tmp_path / "fitted").mkdir()
    list(fit(Settings(), inputs, tmp_path / "fitted"))
    return tmp_path / "fitted"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("stock photo", 3),
        ("Bildrechte", 2),
        ("a cat", 2),  # as a further caption; a text without an image counts no image
        ("a copy of the same image", 1),
        ("never seen", 1),
        ("", 1),
    ],
)
def test_a_caption_is_counted_by_the_images_that_have_it(counted, text, count):
    assert SharedCaptions(counted).count(text) == count


def test_what_is_kept_holds_no_text(counted):
    rows = read_table(counted / CAPTIONS_FILE).to_pylist()
    assert [row["num_images"] for row in rows] == [3, 2, 2]
    assert all(len(row["caption_id"]) == 64 for row in rows)


def test_a_corpus_without_captions_shares_none(tmp_path):
    list(fit(Settings(), FitInputs(tables={"records": []}, models={}), tmp_path))
    assert SharedCaptions(tmp_path).count("a cat") == 1
