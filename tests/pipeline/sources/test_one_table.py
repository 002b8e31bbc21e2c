"""One table of cases, in every source that can hold them: what one source knows, all know."""

import csv
import io
import json
from dataclasses import dataclass, field

import datasets
import pytest

from pipeline.errors import UserError
from pipeline.sources import FolderSettings, HuggingFaceSettings, TableSettings, WebDatasetSettings
from tests.faults.bad_records import tar_of
from tests.pipeline.sources.files import png, read, write_json_lines, write_parquet


@dataclass(frozen=True, kw_only=True)
class Case:
    """The columns of a row next to its picture, and what the record is to say.

    `caption` is the reject's reason where there is no record.
    """

    row: dict[str, object]
    caption: str
    more: dict[str, str] = field(default_factory=dict)
    licence: str = "unknown"
    attribution: str = ""
    origin: str | None = None
    in_csv: bool = True


CASES = {
    "caption": Case(row={"caption": "a cat"}, caption="a cat"),
    "any case": Case(row={"TEXT": "a cat"}, caption="a cat"),
    "number": Case(row={"text": "1984"}, caption="1984"),
    "title behind": Case(
        row={"title": "Cat", "caption": "a cat"}, caption="a cat", more={"title": "Cat"}
    ),
    "language": Case(
        row={"caption": "a cat", "caption_de": "eine Katze"},
        caption="a cat",
        more={"caption_de": "eine Katze"},
    ),
    "languages": Case(
        row={"en": "a cat", "de": "eine Katze"}, caption="a cat", more={"de": "eine Katze"}
    ),
    "several": Case(
        row={"captions": ["a cat", "a pet"]},
        caption="a cat",
        more={"captions-1": "a pet"},
        in_csv=False,
    ),
    "empty text": Case(row={"text": "", "title": "Cat"}, caption="ingest-no-caption"),
    "provenance": Case(
        row={
            "text": "a cat",
            "License": "CC-BY-4.0",
            "photographer": "Ann",
            "url": "https://x.org/cat",
            "hash": "abcdef",
        },
        caption="a cat",
        licence="CC-BY-4.0",
        attribution="Ann",
        origin="https://x.org/cat",
    ),
    "chat": Case(
        row={
            "conversations": [
                {"from": "human", "value": "<image>\nDescribe it."},
                {"from": "gpt", "value": "a cat"},
            ]
        },
        caption="a cat",
        in_csv=False,
    ),
}


def folder_json(root, row):
    (root / "a.png").write_bytes(png())
    (root / "a.json").write_text(json.dumps(row))
    return FolderSettings(kind="folder", path=root)


def folder_metadata(suffix, write):
    def make(root, row):
        (root / "a.png").write_bytes(png())
        write(root / f"metadata.{suffix}", {"file_name": "a.png", **row})
        return FolderSettings(kind="folder", path=root)

    make.__name__ = f"folder_{suffix}"
    return make


def table(suffix, write):
    def make(root, row):
        (root / "a.png").write_bytes(png())
        path = root / f"t.{suffix}"
        write(path, {"image": "a.png", **row})
        return TableSettings(kind="table", path=path, image_column="image")

    make.__name__ = f"table_{suffix}"
    return make


def webdataset(root, row):
    (root / "0.tar").write_bytes(tar_of(("a.png", png()), ("a.json", json.dumps(row).encode())))
    return WebDatasetSettings(kind="webdataset", path=root)


def huggingface(root, row):
    rows = datasets.Dataset.from_list([{"image": {"bytes": png(), "path": None}, **row}])
    rows.cast_column("image", datasets.Image(decode=False)).save_to_disk(root / "saved")
    return HuggingFaceSettings(kind="huggingface", path=root / "saved")


def write_csv(path, row, delimiter=","):
    text = io.StringIO()
    writer = csv.DictWriter(text, row, delimiter=delimiter)
    writer.writeheader()
    writer.writerow(row)
    path.write_text(text.getvalue())


def write_semicolons(path, row):
    write_csv(path, row, ";")


def write_tabs_in_utf16(path, row):
    write_csv(path, row, "\t")
    path.write_bytes(path.read_text().replace("\n", "\r").encode("utf-16"))


def write_row(path, row):
    write_parquet(path, {name: [value] for name, value in row.items()})


WRITERS = (
    ("csv", write_csv), ("CSV", write_semicolons), ("tsv", write_tabs_in_utf16),
    ("jsonl", write_json_lines), ("parquet", write_row),
)  # fmt: skip
HOLDERS = [
    folder_json,
    *(folder_metadata(suffix, write) for suffix, write in WRITERS),
    *(table(suffix, write) for suffix, write in WRITERS),
    webdataset,
    huggingface,
]


@pytest.mark.parametrize("make", HOLDERS, ids=lambda make: make.__name__)
def test_a_row_in_which_nothing_is_a_caption_by_its_name_gives_no_record(tmp_path, make):
    settings = make(tmp_path, {"md5": "abcdef", "rating": "safe", "split": "train"})
    try:
        records, rejects = read(settings)
    except UserError:  # of a table it is known before any row is read
        return
    assert (records, [reason for _, reason in rejects]) == ([], ["ingest-no-caption"])


@pytest.mark.parametrize(
    ("make", "case"),
    [
        pytest.param(make, case, id=f"{make.__name__}-{case}")
        for make in HOLDERS
        for case, wanted in CASES.items()
        # A CSV has no lists.
        if wanted.in_csv or not make.__name__.lower().endswith(("csv", "tsv"))
    ],
)
def test_every_source_reads_a_row_alike(tmp_path, make, case):
    wanted = CASES[case]
    records, rejects = read(make(tmp_path, wanted.row))
    if wanted.caption.startswith("ingest-"):
        assert [reason for _, reason in rejects] == [wanted.caption]
        return
    ((record,), _) = records, rejects
    assert (record.image, record.caption, dict(record.more_captions)) == (
        png(), wanted.caption, wanted.more,
    )  # fmt: skip
    assert (record.licence, record.attribution) == (wanted.licence, wanted.attribution)
    assert record.origin == (wanted.origin or record.key)
