import datasets
import pytest
from PIL import Image
from pydantic import ValidationError

from pipeline.errors import UserError
from pipeline.references import image_bytes
from pipeline.sources import HuggingFaceSettings, open_source
from tests.pipeline.sources.test_webdataset import ingest

FEATURES = datasets.Features({
    "image": datasets.Image(), "text": datasets.Value("string"),
    "german": datasets.List(datasets.Value("string")),
})  # fmt: skip


@pytest.fixture(params=["saved", "saved with splits", "parquet"])
def settings(request, tmp_path):
    dataset = datasets.Dataset.from_dict({
        "image": [*(Image.new("RGB", (8, 8), (n, 0, 0)) for n in range(6)), None],
        "text": [*(f"picture {n}" for n in range(5)), None, "no image"],
        "german": [[f"Bild {n}", f"Foto {n}"] for n in range(5)] + [None, None],
    }, features=FEATURES)  # fmt: skip
    if request.param == "saved":
        dataset.save_to_disk(tmp_path)
    elif request.param == "saved with splits":
        datasets.DatasetDict({"train": dataset, "test": dataset}).save_to_disk(tmp_path)
    else:
        dataset.to_parquet(tmp_path / "train.parquet", batch_size=3)
    return HuggingFaceSettings(
        kind="huggingface", path=tmp_path, caption_columns=("text", "german")
    )


def test_every_row_is_a_record_or_a_reject_however_it_is_cut(settings):
    rows, rejects = ingest(settings, rows_per_part=4)
    assert [row["caption"] for row in rows] == [f"picture {n}" for n in range(5)]
    assert rows[1]["more_captions"] == [
        {"name": "german", "text": "Bild 1"},
        {"name": "german-1", "text": "Foto 1"},
    ]
    assert [row["reason"] for row in rejects] == ["ingest-no-caption", "ingest-no-image"]
    assert rows == ingest(settings, rows_per_part=100)[0]


def test_untouched_files_are_remembered_by_their_look(settings):
    before = list(open_source(settings).parts(4, {}))
    assert list(open_source(settings).parts(4, {part.look: part for part in before})) == before


def test_referenced_images_are_read_from_parquet(settings):
    copied, _ = ingest(settings)
    referenced, _ = ingest(settings, images="reference")
    assert image_bytes(referenced) == [row["image"] for row in copied]


def test_a_column_that_is_not_there_is_named(settings):
    wrong = settings.model_copy(update={"caption_columns": ("txet",)})
    with pytest.raises(UserError) as error:
        list(open_source(wrong).parts(4, {}))
    assert "source 'huggingface': there is no column 'txet' in " in str(error.value)
    assert "Did you mean 'text'? The columns are image, text, german" in str(error.value)


def test_texts_are_stripped_by_language_or_refused_as_in_a_table(tmp_path):
    rows = [
        {"text": [" one "], "more": {"en": "two", "de": None}, "n": 1},
        {"text": [], "more": {"en": "three", "de": "drei"}, "n": 2},
    ]
    path = tmp_path / "train.parquet"
    datasets.Dataset.from_list(rows).to_parquet(path)
    columns = {"kind": "huggingface", "path": tmp_path, "image_column": None}
    first, second = ingest(HuggingFaceSettings(**columns, caption_columns=("text", "more")))[0]
    assert (first["caption"], first["more_captions"]) == ("one", [{"name": "en", "text": "two"}])
    assert second["caption"] == "three"
    assert second["more_captions"] == [{"name": "de", "text": "drei"}]
    rows, rejects = ingest(HuggingFaceSettings(**columns, caption_columns=("n",)))
    assert not rows
    assert [row["reason"] for row in rejects] == ["ingest-wrong-type"] * 2


def test_either_a_name_or_a_folder_is_given():
    with pytest.raises(ValidationError, match="either"):
        HuggingFaceSettings(kind="huggingface")


def test_a_folder_on_a_store_is_refused_by_the_recipe():
    with pytest.raises(ValueError, match="must be a local folder"):
        HuggingFaceSettings(kind="huggingface", path="memory://bucket/folder")
