from dataclasses import asdict

import pytest
from PIL import Image

from pipeline.engine.schemas import RECORDS
from pipeline.engine.stage import Work
from pipeline.engine.tables import read_table, write_table
from pipeline.ingest import IngestSettings, IngestWorker
from pipeline.sources import FolderSettings, ShapesSettings, open_source


def ingest(source, **settings):
    rows, rejects = [], []
    worker = IngestWorker(IngestSettings(**settings), {})
    for part in open_source(source).parts(100, {}):
        extra = {"part": asdict(part), "source": source.model_dump(mode="json")}
        output = worker(Work(part=part.name, extra=extra))
        rows += output.rows
        rejects += output.rejects
    return rows, rejects


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pictures"
    (root / "deep").mkdir(parents=True)
    Image.new("RGB", (20, 10), "red").save(root / "deep" / "a.png")
    (root / "deep" / "a.txt").write_text("a red field\n")
    Image.new("RGB", (20, 10), "blue").save(root / "no-caption.jpg")
    (root / "broken.png").write_bytes(b"not an image")
    (root / "broken.txt").write_text("broken")
    Image.new("RGB", (90, 90), "green").save(root / "large.png")
    (root / "large.txt").write_text("a green field")
    (root / "notes.md").write_text("not a picture")
    return FolderSettings(kind="folder", path=root, licence="CC0-1.0")


def test_every_picture_becomes_a_record_or_a_reject_with_a_reason(folder):
    rows, rejects = ingest(folder, max_pixels=5000)
    assert [row["caption"] for row in rows] == ["a red field"]
    assert {row["reason"] for row in rejects} == {
        "ingest-no-caption",
        "decode-not-an-image",
        "decode-too-many-pixels",
    }
    assert all(row["detail"] for row in rejects)
    assert len({row["record_id"] for row in [*rows, *rejects]}) == 4


def test_the_bytes_of_the_picture_are_kept_as_they_are(folder):
    rows, _ = ingest(folder)
    (row,) = [row for row in rows if row["key"] == "deep/a.png"]
    assert row["image"] == (folder.path / "deep" / "a.png").read_bytes()
    assert (row["width"], row["height"], row["licence"]) == (20, 10, "CC0-1.0")


def test_a_caption_without_end_is_rejected(folder):
    _, rejects = ingest(folder, max_caption_characters=5)
    assert "ingest-caption-too-long" in {row["reason"] for row in rejects}


def test_rows_fit_the_schema(folder, tmp_path):
    rows, _ = ingest(folder)
    write_table(tmp_path / "t.parquet", rows, RECORDS)
    assert read_table(tmp_path / "t.parquet").num_rows == len(rows)


def test_equal_pictures_are_on_the_same_side_of_the_split():
    # 32 px shapes repeat; the same picture must never be in both splits.
    rows, _ = ingest(ShapesSettings(kind="shapes", num_records=400, size=16), validation_share=0.3)
    sides = {}
    for row in rows:
        sides.setdefault(row["image_id"], set()).add(row["split"])
    assert all(len(side) == 1 for side in sides.values())
    assert {"train", "validation"} == set.union(*sides.values())


def test_what_was_forgotten_stays_away_without_a_word_about_it(folder, tmp_path):
    from pipeline.engine.forgotten import FORGOTTEN_FILE, Entry, remember

    remember(tmp_path, [Entry(kind="source-prefix", value="folder/deep/")])
    worker = IngestWorker(IngestSettings(), {})
    (part,) = open_source(folder).parts(100, {})
    extra = {
        "part": asdict(part),
        "source": folder.model_dump(mode="json"),
        "forgotten": str(tmp_path / FORGOTTEN_FILE),
    }
    output = worker(Work(part=part.name, extra=extra))
    assert [row["key"] for row in output.rows] == ["large.png"]
    (row,) = [row for row in output.rejects if row["reason"] == "ingest-forgotten"]
    assert row["detail"] is None


def test_the_wrong_file_name_does_no_harm(folder):
    (folder.path / "no-caption.txt").write_text("a blue field")
    (folder.path / "no-caption.jpg").rename(folder.path / "no-caption.png")
    rows, _ = ingest(folder)
    assert "a blue field" in {row["caption"] for row in rows}
