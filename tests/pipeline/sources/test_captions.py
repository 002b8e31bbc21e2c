"""What becomes a caption, a licence and an origin by its name, and what never does."""

import csv
import io

import pytest

from pipeline.errors import UserError
from pipeline.sources import HuggingFaceSettings, TableSettings
from pipeline.sources.captions import Captions, captions_of, named_captions
from pipeline.sources.known_names import caption_columns, image_column
from tests.pipeline.sources.files import png, read, write_json_lines, write_lines, write_parquet

LLAVA = [
    {"from": "human", "value": "<image>\nDescribe it."},
    {"from": "gpt", "value": "a flag"},
    {"from": "human", "value": "Which colour?"},
    {"from": "gpt", "value": "<image>red"},
]
OPENAI = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "image_url"}, {"type": "text", "text": "What is it?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "a flag"}]},
    {"role": "assistant", "content": "red"},
]
CELLS = {
    "a text": ("a flag", ["a flag"]),
    "a number as text": ("1984", ["1984"]),
    "a list": (["a flag", None, "red"], ["a flag", "red"]),
    "a list spelled out": ('["a flag", "red"]', ["a flag", "red"]),
    "a list as Python prints it": ("['a flag', \"it's\"]", ["a flag", "it's"]),
    "an array as NumPy prints it": ("['a flag'\n 'red']", ["a flag", "red"]),
    "a list with a broken escape": (r"['\x2']", [r"['\x2']"]),
    "a list that is none": ("['a flag' of 'red']", ["['a flag' of 'red']"]),
    "a map of Arrow's": ([("en", "a flag"), ("de", "eine Flagge")], ["a flag", "eine Flagge"]),
    "The Cauldron's turns": (
        [{"user": "What is it?", "assistant": "a flag", "source": "vqa"}], ["a flag"],
    ),
    "an object spelled out": ('{"en": "a flag", "de": "eine Flagge"}', ["a flag", "eine Flagge"]),
    "a text in braces": ('{"a": "flag"}', ['{"a": "flag"}']),
    "a text in brackets": ("[a flag] red", ["[a flag] red"]),
    "one a language": ({"en": "a flag", "de": "eine Flagge", "id": 3}, ["a flag", "eine Flagge"]),
    "COCO's annotations": ([{"caption": "a flag", "id": 4, "image_id": 2}], ["a flag"]),
    "Flickr's sentences": (
        [{"tokens": ["a"], "raw": "a flag", "imgid": 0, "sentid": 1}], ["a flag"],
    ),
    "LLaVA's conversation": (LLAVA, ["a flag", "red"]),
    "OpenAI's messages": (OPENAI, ["a flag", "red"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_gives_its_texts_and_nothing_else(kind):
    cell, texts = CELLS[kind]
    for found in (named_captions({"text": cell}), captions_of({"text": cell}, ["text"])):
        assert isinstance(found, Captions)
        assert [found.caption, *found.more.values()] == texts


NEVER = [
    "id", "image_id", "caption_id", "md5", "sha256", "hash", "url", "license", "licence_url",
    "photographer", "author", "split", "rating", "score", "nsfw", "is_nsfw", "is_valid", "no",
    "width", "file_name", "key", "is_caption", "num_captions", "from", "role", "to_do", "my_data",
]  # fmt: skip


@pytest.mark.parametrize("name", [*NEVER, *map(str.upper, NEVER)])
def test_what_no_list_knows_is_never_a_caption(name):
    assert caption_columns([name]) == []
    assert named_captions({name: "a flag"}).reason == "ingest-no-caption"


def test_captions_are_known_in_any_case_with_languages_and_numbers():
    names = ["URL", "title", "Caption", "caption_de", "TEXT", "caption-2", "Alt Text", "pt-BR"]
    assert caption_columns(names) == [
        "Caption", "caption_de", "caption-2", "TEXT", "Alt Text", "title",
    ]  # fmt: skip
    assert caption_columns(["id", "en", "de", "pt-BR", "zh_Hans"]) == [
        "en",
        "de",
        "pt-BR",
        "zh_Hans",
    ]
    assert image_column(["id", "Image", "path"]) == "Image"
    assert caption_columns(["altText", "captionId", "imageUrl"]) == ["altText"]
    assert image_column(["Id", "FileName"]) == "FileName"
    assert image_column(["prompt", "img_path"]) == "img_path"  # JourneyDB
    assert image_column(["image_name", " comment"]) == "image_name"  # Flickr30k on Kaggle
    assert image_column(["id", "depth_file_name"]) == "depth_file_name"


def written(root, form, rows):
    names = list(rows[0])
    match form:
        case "csv":
            stream = io.StringIO()
            writer = csv.DictWriter(stream, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            return write_lines(root / "t.csv", stream.getvalue())
        case "jsonl":
            return write_json_lines(root / "t.jsonl", *rows)
        case _:
            columns = {name: [row[name] for row in rows] for name in names}
            return write_parquet(root / "t.parquet", columns)


ROWS = [
    {"text": "a flag", "url": "https://x.example/a", "license": "CC-BY-4.0", "split": "train",
     "photographer": "Ann Example", "title": "Flag"},
    {"text": "", "url": "https://x.example/b", "license": None, "split": "train",
     "photographer": "Bob Example", "title": "Another"},
    {"text": "1984", "url": None, "license": "CC0-1.0", "split": "train", "photographer": None,
     "title": None},
]  # fmt: skip


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "huggingface"])
def test_the_first_known_column_decides_and_the_rest_goes_where_it_belongs(tmp_path, form):
    path = written(tmp_path, form, ROWS)
    settings = TableSettings(kind="table", path=path, licence="unsaid")
    if form == "huggingface":
        settings = HuggingFaceSettings(
            kind="huggingface", path=tmp_path, image_column=None, licence="unsaid"
        )
    (first, third), rejects = read(settings)
    assert (first.caption, first.more_captions) == ("a flag", {"title": "Flag"})
    assert (first.origin, first.licence, first.attribution) == (
        "https://x.example/a", "CC-BY-4.0", "Ann Example",
    )  # fmt: skip
    assert (third.caption, third.more_captions) == ("1984", {})
    assert (third.licence, third.attribution) == ("CC0-1.0", "")
    assert third.origin == third.key
    assert [reason for _, reason in rejects] == ["ingest-no-caption"]


def test_columns_that_the_recipe_names_come_before_known_names(tmp_path):
    row = {"text": "", "alt": "a flag", "license": "wrong", "terms": "CC0-1.0", "url": "https://x"}
    path = write_json_lines(tmp_path / "t.jsonl", row)
    (record,), _ = read(TableSettings(
        kind="table", path=path, caption_columns=["text", "alt"], licence_column="terms",
    ))  # fmt: skip
    assert (record.caption, record.licence, record.origin) == ("a flag", "CC0-1.0", "https://x")


def test_a_table_finds_its_pictures_by_known_names(tmp_path):
    (tmp_path / "a.png").write_bytes(png(1))
    rows = [
        {"id": "1", "image": "a.png", "conversations": LLAVA},
        {"id": "2", "conversations": LLAVA},
        {"id": "3", "image": None, "conversations": LLAVA},
    ]
    (pair, text), rejects = read(
        TableSettings(kind="table", path=write_json_lines(tmp_path / "t.jsonl", *rows))
    )
    assert (pair.caption, pair.image) == ("a flag", png(1))
    assert pair.more_captions == {"conversations-1": "red"}
    assert (text.caption, text.image) == ("a flag", None)
    assert rejects == [("t.jsonl#2", "ingest-no-image")]


@pytest.mark.parametrize("kind", ["table", "huggingface"])
def test_a_table_without_any_caption_is_said_before_any_work(tmp_path, kind):
    write_parquet(tmp_path / "train.parquet", {"id": ["1"], "label": ["cat"]})
    settings = (
        TableSettings(kind="table", path=tmp_path / "train.parquet")
        if kind == "table"
        else HuggingFaceSettings(kind="huggingface", path=tmp_path, image_column=None)
    )
    with pytest.raises(UserError) as error:
        read(settings)
    assert str(error.value) == (
        f"source '{kind}': no column in {tmp_path}/train.parquet is a caption by its name\n"
        "Name it with `caption_columns`. The columns are id, label."
    )


@pytest.mark.parametrize("form", ["csv", "parquet", "huggingface"])
def test_two_columns_of_one_name_are_said_before_any_work(tmp_path, form):
    import pyarrow as pa

    if form == "csv":
        path = write_lines(tmp_path / "t.csv", "caption,n,caption", "one,1,two")
    else:
        twins = pa.table([["one"], ["1"], ["two"]], names=["caption", "n", "caption"])
        path = write_parquet(tmp_path / "t.parquet", twins)
    settings = TableSettings(kind="table", path=path)
    if form == "huggingface":
        settings = HuggingFaceSettings(kind="huggingface", path=tmp_path, image_column=None)
    with pytest.raises(UserError) as error:
        read(settings)
    assert f"{path} has 2 columns named 'caption'" in str(error.value)
    assert error.value.exit_code == 2


def test_two_columns_of_one_name_that_nobody_uses_are_no_fault(tmp_path):
    path = write_lines(tmp_path / "t.csv", "caption,,", "one,,")
    assert [record.caption for record in read(TableSettings(kind="table", path=path))[0]] == ["one"]
