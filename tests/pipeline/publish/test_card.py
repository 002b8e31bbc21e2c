"""The card says what the shards hold, and loads what it says."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import datasets
import pytest
import yaml
from huggingface_hub import DatasetCard

from jobs import cli
from jobs.embedding import text_encoder
from jobs.run import open_corpus
from pipeline.engine.corpus import Corpus
from pipeline.engine.schemas import TABLES
from pipeline.errors import UserError
from pipeline.publish.card import size_category, write_card
from tests.pipeline.publish.conftest import HOSTILE, NUM_FILES, NUM_SHAPES, NUM_TEXTS


@pytest.fixture(scope="module")
def card(root: Path) -> DatasetCard:
    corpus = open_corpus(root)[1]
    return DatasetCard.load(write_card(corpus, embed=text_encoder(corpus)))


def test_metadata_is_what_the_hub_asks_for(card: DatasetCard) -> None:
    data = card.data.to_dict()
    assert data["license"] == "other"
    assert data["license_name"] == "several-see-the-link"
    assert data["license_link"] == "LICENSE.md"
    assert data["pretty_name"] == "tiny"
    assert data["size_categories"] == ["n<1K"]
    assert {"webdataset", "image", "text", "synthetic"} <= set(data["tags"])
    assert {"text-to-image", "image-to-text", "any-to-any"} <= set(data["task_categories"])
    assert "language" not in data  # nobody knows it of a user's folder
    assert [config["config_name"] for config in data["configs"]] == ["image", "mixed", "text"]


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("stream", ["image", "mixed", "text"])
def test_each_config_loads_exactly_the_shards_of_its_stream_and_split(
    card: DatasetCard, root: Path, tmp_path: Path, stream: str, split: str
) -> None:
    keys = _members(root, stream, split)
    rows = datasets.load_dataset(str(root), stream, split=split, cache_dir=str(tmp_path))
    assert sorted(rows["__key__"]) == sorted({name.partition(".")[0] for name in keys})
    info = next(i for i in card.data.to_dict()["dataset_info"] if i["config_name"] == stream)
    counts = {row["name"]: row["num_examples"] for row in info["splits"]}
    assert counts[split] == len(rows)


def test_numbers_are_those_of_a_recount_of_the_shards(card: DatasetCard, root: Path) -> None:
    samples, records, kinds = Counter(), Counter(), Counter()
    for stream in ("image", "mixed", "text"):
        for split in ("train", "validation"):
            for name, content in _members(root, stream, split).items():
                _, _, extension = name.partition(".")
                if extension == "json":
                    samples[stream, split] += 1
                    sample = json.loads(content)
                    is_about = sample.get("kind") == "text"  # its record is a sample elsewhere
                    records[stream, split] += 0 if is_about else len(sample["record_ids"])
                    kinds.update([sample["kind"]] if is_about else _kinds(sample))
                    lines = sample.get("variants", "").split("\n")
                    kinds.update(json.loads(line)["kind"] for line in lines if line)
    for stream, split in samples:
        shards = len(list(_shards(root, stream, split)))
        row = (stream, split, shards, samples[stream, split], records[stream, split])
        assert "| " + " | ".join(map(str, row)) + " |" in card.text
    assert f"{sum(samples.values())} samples from {sum(records.values())} records" in card.text
    for kind in ("caption", "style", "negative", "text", "interleave"):
        (row,) = re.findall(rf"\| {kind} \| \d+ \| (\d+) \|", card.text)
        assert int(row) == kinds[kind]


def test_records_given_are_those_kept_and_those_left_out_for_a_reason(card: DatasetCard) -> None:
    section = card.text.split("## Where the records went")[1].split("\n## ")[0]
    (given,) = re.findall(r"^\| given .* (\d+) \|$", section, re.MULTILINE)
    ends = re.findall(r"^\| (?:left out|kept) .* (\d+) \|$", section, re.MULTILINE)
    assert int(given) == NUM_SHAPES + NUM_FILES + NUM_TEXTS
    assert int(given) == sum(map(int, ends))
    for reason in ("ingest-no-caption", "decode-not-an-image", "duplicate-image"):
        assert f"`{reason}`" in section


def test_every_member_and_key_of_a_sample_and_every_column_is_described(
    card: DatasetCard, root: Path
) -> None:
    for stream in ("image", "mixed", "text"):
        for name, content in _members(root, stream, "train").items():
            extension = name.partition(".")[2]
            assert f"`KEY.{extension}`" in card.text
            if extension == "json":
                assert all(f"`{key}`" in card.text for key in json.loads(content))
    for schema in TABLES.values():
        assert all(f"`{field.name}`" in card.text for field in schema)


def test_code_on_the_card_runs_in_the_folder_of_the_card(card: DatasetCard, root: Path) -> None:
    programs = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert len(programs) == 2
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(programs)],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("record_ids") == 2


def test_prompt_is_shown_and_the_writer_is_named(card: DatasetCard) -> None:
    for kind in ("caption", "style", "negative", "text", "interleave"):
        assert f"The prompt for {kind}" in card.text
    assert "You write captions of a picture" in card.text
    assert "`replayed@0`" in card.text


def test_diversity_is_that_of_the_texts_in_the_shards(card: DatasetCard, root: Path) -> None:
    section = card.text.split("### Diversity")[1].split("<details>")[0]
    kinds = re.findall(r"^\|.*\|$", section.split("| form |")[0], re.MULTILINE)
    rows = {row[0]: row[1:] for row in map(_cells, kinds)}
    writers = card.text.split("| written by |")[1].split("### Diversity")[0]
    written = re.findall(r"\| (\w+) \| \d+ \| (\d+) \|", writers)
    assert len(written) == 5
    assert {kind: rows[kind][0] for kind, _ in written} == dict(written)
    assert int(rows["all of the LLM"][0]) == sum(int(count) for _, count in written)
    assert 0 < float(rows["all of the LLM"][-1]) < 2
    assert f"all {rows['all of the LLM'][0]} texts were compared" in section


def test_text_from_outside_cannot_become_markup(card: DatasetCard) -> None:
    assert "<script" not in card.text
    assert "<b>" not in card.text
    assert HOSTILE not in card.text


def test_licences_are_listed_for_the_link(card: DatasetCard, root: Path) -> None:
    assert card.data.to_dict()["license_link"] == "LICENSE.md"
    text = (root / "LICENSE.md").read_text()
    for licence in ("CC0-1.0", "PSF-2.0", "unknown"):
        assert f"| {licence} |" in text


@pytest.mark.parametrize(
    ("licences", "said"),
    [
        (["CC-BY-4.0"], {"license": "cc-by-4.0"}),
        (["PSF-2.0"], {"license": "other", "license_name": "psf-2.0"}),
        (["CC-BY-4.0", "MIT"], {"license": "other", "license_name": "several-see-the-link"}),
        ([f"my licence {n}" for n in range(999)], {"license_name": "several-see-the-link"}),
    ],
)
def test_several_licences_are_no_licence_with_a_name(
    card: DatasetCard, corpus: Corpus, monkeypatch, licences: list[str], said: dict[str, str]
) -> None:
    monkeypatch.setattr("pipeline.publish.facts.licences", lambda _: licences)
    data = DatasetCard.load(write_card(corpus, embed=None)).data.to_dict()
    assert said.items() <= data.items()


def test_the_way_to_have_something_removed_is_the_command_that_does_it(
    card: DatasetCard, root: Path, tmp_path: Path
) -> None:
    section = card.text.split("## How to have something removed")[1]
    (command,) = re.findall(r"anymix (forget \. --record) RECORD_ID", section)
    shutil.copytree(root, tmp_path / "corpus")
    ((record_id,),) = open_corpus(root)[1].query("SELECT min(record_id) FROM records").fetchall()
    arguments = [*command.replace(" .", f" {tmp_path / 'corpus'}").split(), record_id]
    assert cli.call(arguments) == 0
    left = open_corpus(tmp_path / "corpus")[1].query("SELECT record_id FROM records").fetchall()
    assert (record_id,) not in left


def test_card_of_an_unchanged_corpus_is_the_same_to_the_byte(corpus: Corpus, root: Path) -> None:
    first = write_card(corpus, embed=text_encoder(corpus)).read_bytes()
    again = open_corpus(root)[1]
    assert write_card(again, embed=text_encoder(again)).read_bytes() == first


def test_yaml_has_no_aliases_that_the_hub_would_not_read(card: DatasetCard) -> None:
    header = str(card).split("---")[1]
    assert "&id" not in header
    assert yaml.safe_load(header)["annotations_creators"] == ["found", "machine-generated"]


def test_corpus_without_shards_has_no_card(begun: Path, tmp_path: Path) -> None:
    shutil.copytree(begun, tmp_path / "begun")
    with pytest.raises(UserError, match="no shards yet"):
        write_card(open_corpus(tmp_path / "begun")[1], embed=None)


@pytest.mark.parametrize(
    ("count", "name"),
    [
        (1, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (123_456, "100K<n<1M"),
        (10**9, "1B<n<10B"), (10**12, "n>1T"),
    ],
)  # fmt: skip
def test_size_category_is_the_power_of_ten_around_the_count(count: int, name: str) -> None:
    assert size_category(count) == name


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def _shards(root: Path, stream: str, split: str) -> list[Path]:
    prefix = stream if split == "train" else f"{stream}-{split}"
    return sorted((root / "shards").glob(f"*/{prefix}-[0-9]*.tar"))


def _members(root: Path, stream: str, split: str) -> dict[str, bytes]:
    members = {}
    for path in _shards(root, stream, split):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                members[member.name] = file.read()
    return members


def _kinds(sample: dict[str, list[dict[str, object]]]) -> list[object]:
    """The kinds of the captions in a sample's JSON."""
    segments = sample.get("segments", [{"captions": sample.get("captions", [])}])
    return [text["kind"] for segment in segments for text in segment.get("captions", [])]


def test_calibration_is_told_and_a_weak_score_is_among_the_limits(card: DatasetCard) -> None:
    before, limits = card.text.split("## Known limits")
    assert "tells true pairs from shuffled ones with an AUC of" in before
    assert "- clip_score is too weak to filter by" in limits
