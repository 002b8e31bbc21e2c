"""Files that are not read are counted and named: at the end of a run, in its status and report."""

import json

import pytest

from jobs import cli
from pipeline.sources import endings
from tests.pipeline.sources.files import png

NOTE = (
    "source folder: 4 files not read: 2 .mp4, 1 .txt without a picture, 1 .xyz;"
    " pip install 'anymix[xyz]' reads the .xyz"
)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A folder with a picture, and with files that are not read."""
    extra = endings.Extra(name="xyz", module="no_such_module", endings=(".xyz",))
    monkeypatch.setattr(endings, "EXTRAS", (extra,))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("b.mp4", "c.MP4", "d.txt", "e.XYZ", ".hidden"):
        (pictures / name).write_bytes(b"")
    (pictures / "a.png").write_bytes(png())
    (pictures / "a.txt").write_text("a red square")
    path = tmp_path / "recipe.yaml"
    path.write_text("""
name: a
sources: [{kind: folder, path: pictures}]
run: {num_workers: 0}
""")
    return path


def test_a_run_its_status_and_its_report_name_what_was_not_read(recipe, tmp_path, capsys):
    corpus = tmp_path / "corpus"
    run = ["run", str(recipe), "--corpus", str(corpus), "--until", "ingest"]
    assert cli.call(run) == 0
    assert NOTE in capsys.readouterr().err
    assert cli.call(["status", str(corpus)]) == 0
    assert NOTE in capsys.readouterr().out
    assert cli.call(["status", str(corpus), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unread"] == {
        "folder": {".mp4": 2, ".txt without a picture": 1, ".xyz": 1}
    }
    assert cli.call(["report", str(corpus)]) == 0
    assert "4 files not read: 2 .mp4" in (corpus / "report.html").read_text()
    for name in ("b.mp4", "c.MP4", "d.txt", "e.XYZ"):
        (tmp_path / "pictures" / name).unlink()
    capsys.readouterr()
    assert cli.call(run) == 0
    assert "not read" not in capsys.readouterr().err


def test_a_source_of_which_nothing_is_read_says_what_there_is(recipe, tmp_path, capsys):
    (tmp_path / "pictures" / "a.png").unlink()
    (tmp_path / "pictures" / "a.txt").unlink()
    assert cli.call(["run", str(recipe), "--corpus", str(tmp_path / "corpus")]) == 2
    said = capsys.readouterr().err
    assert "there is nothing to read in" in said
    assert NOTE in said


def test_a_folder_of_a_million_endings_is_counted_in_a_hundred_kinds():
    unread = endings.Unread()
    for number in range(1000):
        unread.note(f"scan.{number:04}")
        unread.note(f"photo.{'x' * number}y")
    assert len(unread) <= 101
    assert unread.total() == 2000
