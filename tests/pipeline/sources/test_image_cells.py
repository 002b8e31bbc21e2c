"""What the image column of a table may hold, and what is said of the rest."""

import base64
from urllib.parse import quote

import pytest

from pipeline.sources import HuggingFaceSettings, InterleavedSettings, TableSettings
from tests.pipeline.sources.files import parts_of, png, read, write_json_lines, write_parquet

ENCODED = base64.b64encode(png(1)).decode()
SVG = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 9 9'/>"

READ = {
    "a path": "i/a.png",
    "a path with backslashes": "i\\a.png",
    "a path that begins with a dot": ".\\i\\a.png",
    "a path with an escape": "i/%61.png",
    "a path with spaces around it": "  i/a.png ",
    "a file URI": "file://{root}/i/a.png",
    "an absolute path below the folder": "{root}/i/a.png",
    "base64": ENCODED,
    "base64 in lines": "\n".join(ENCODED[at : at + 76] for at in range(0, len(ENCODED), 76)),
    "URL-safe base64": base64.urlsafe_b64encode(png(1)).decode().rstrip("="),
    "a data URI": f"data:image/png;base64,{ENCODED}",
    "a data URI with parameters": f"DATA:image/png;name=a.png;base64,{quote(ENCODED)}",
    "a list of one": ["i/a.png"],
    "an object with a path": {"path": "i/a.png"},
    "an object with null bytes": {"bytes": None, "path": "i/a.png"},
    "a list of one object": [{"bytes": None, "path": "i/a.png"}],
    "an object with an address of data": {"url": f"data:image/png;base64,{ENCODED}"},
}
REJECTED = {
    "an address": ("https://x.example/flags/a.png", "ingest-image-is-url"),
    "an address in a bucket": ("s3://bucket/a.png", "ingest-image-is-url"),
    "a Windows path": ("C:\\flags\\a.png", "ingest-path-outside"),
    "a share": ("\\\\server\\flags\\a.png", "ingest-path-outside"),
    "a path outside": ("..\\..\\a.png", "ingest-path-outside"),
    "a file URI outside": ("file:///etc/hostname", "ingest-path-outside"),
    "several images": (["i/a.png", "i/a.png"], "ingest-several-images"),
    "no image": ([], "ingest-no-image"),
    "an empty object": ({"bytes": None, "path": None}, "ingest-no-image"),
    "an object of another kind": ({"file": "i/a.png"}, "ingest-wrong-type"),
    "pixels": ([[1, 2], [3, 4]], "ingest-wrong-type"),
    "damaged base64": (ENCODED[:-1] + "=A" + ENCODED, "ingest-image-malformed"),
    "base64 of too many bytes": (ENCODED + "AAAA" * 9999, "ingest-image-too-large"),
    "a missing file": ("i/b.png", "ingest-image-missing"),
    "a folder": ("i", "ingest-image-missing"),
}


def written(root, cell, kind):
    (root / "i").mkdir(exist_ok=True)
    (root / "i" / "a.png").write_bytes(png(1))
    cell = cell.replace("{root}", str(root)) if isinstance(cell, str) else cell
    if kind == "table":
        path = write_json_lines(root / "t.jsonl", {"caption": "one", "image": cell})
        return TableSettings(kind="table", path=path, max_image_bytes=9000)
    segments = [{"type": "image", "image": cell}, {"type": "text", "text": "one"}]
    path = write_json_lines(root / "t.jsonl", {"segments": segments})
    return InterleavedSettings(kind="interleaved", path=path, max_image_bytes=9000)


@pytest.mark.parametrize("kind", ["table", "interleaved"])
@pytest.mark.parametrize("name", READ)
def test_an_image_is_found_however_a_cell_gives_it(tmp_path, name, kind):
    (record,), rejects = read(written(tmp_path, READ[name], kind))
    assert (record.image, rejects) == (png(1), [])
    lies_in_a_file = "base64" not in str(name) and "data" not in name
    assert record.image_ref == (f"{tmp_path}/i/a.png" if lies_in_a_file else None)


@pytest.mark.parametrize("name", REJECTED)
def test_what_is_no_image_here_is_said(tmp_path, name):
    cell, reason = REJECTED[name]
    assert read(written(tmp_path, cell, "table"))[1] == [("t.jsonl#0", reason)]


def test_a_drawing_may_be_spelled_out_in_a_data_uri(tmp_path):
    (record,), _ = read(written(tmp_path, f"data:image/svg+xml,{quote(SVG)}", "table"))
    assert record.image == SVG.encode()


def test_a_dataset_finds_files_only_below_its_own_folder(tmp_path):
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / "a.png").write_bytes(png(1))
    cells = [{"bytes": None, "path": path} for path in ("i/a.png", "gone.png", "https://x/a.png")]
    write_parquet(tmp_path / "train.parquet", {"text": ["one", "two", "three"], "image": cells})
    settings = HuggingFaceSettings(kind="huggingface", path=tmp_path)
    (record,), rejects = read(settings)
    assert (record.image, record.image_ref) == (png(1), f"{tmp_path}/i/a.png")
    assert [reason for _, reason in rejects] == ["ingest-image-missing", "ingest-image-is-url"]
    assert len(parts_of(settings)) == 1
