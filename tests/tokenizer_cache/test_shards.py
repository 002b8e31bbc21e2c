import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from pipeline.engine.fingerprint import hash_file
from pipeline.engine.tables import read_table, write_table
from pipeline.engine.token_schemas import TOKENS
from pipeline.images import decode
from tests.tokenizer_cache.corpus import Selected, shard_work, text_models, write_part, written_by
from tokenizer_cache.packed_codes import pack
from tokenizer_cache.settings import PictureSettings, ShardSettings
from tokenizer_cache.shard_index import ShardIndex
from tokenizer_cache.shard_reading import (
    Caption,
    ImageSegment,
    Sample,
    TextSegment,
    read_shard,
)
from tokenizer_cache.shards import ShardWorker

VARIANTS = (("v1", "caption", "a square"), ("v2", "style", "inked"), ("v3", "negative", "a dog"))
SELECTED = [
    Selected(record_id="a", stream="text", caption="only <img> text"),
    Selected(record_id="b", stream="image"),
    Selected(record_id="c", stream="mixed"),
    Selected(record_id="d", stream="image", split="validation"),
    Selected(record_id="e", stream="mixed"),
    *(Selected(record_id=f"f{n}", stream="image") for n in range(6)),
    Selected(record_id="g", stream="image", variants=VARIANTS),
    Selected(record_id="h", stream="mixed", variants=VARIANTS),
]
NAMES = {
    "text/train": "text-000000.tar",
    "image/train": "image-000000.tar",
    "image/validation": "image-validation-000000.tar",
    "mixed/train": "mixed-000000.tar",
}


def write(root: Path, **settings: Any) -> tuple[Path, list[dict[str, Any]]]:
    work = shard_work(root, write_part(root, "part", SELECTED))
    output = ShardWorker(ShardSettings(**settings), text_models())(work)
    return written_by(work), list(output.rows)


def samples_of(folder: Path, stream: str) -> list[Sample]:
    return list(read_shard(folder / NAMES[f"{stream}/train"]))


def test_every_selected_record_and_text_is_in_one_sample(tmp_path: Path) -> None:
    folder, rows = write(tmp_path)
    assert sorted(name for row in rows for name in row["record_ids"]) == sorted(
        each.record_id for each in SELECTED
    )
    texts = [text for row in rows for text in row["variant_ids"]]
    assert len(texts) == len(set(texts)) == len(SELECTED) + 2 * len(VARIANTS)
    read = [sample.key for name in NAMES.values() for sample in read_shard(folder / name)]
    assert sorted(read) == sorted(row["key"] for row in rows)


def test_text_sample_is_its_text(tmp_path: Path) -> None:
    folder, _ = write(tmp_path)
    (sample,) = samples_of(folder, "text")
    assert sample.segments == (TextSegment(captions=(Caption(text="only <img> text"),)),)
    assert sample.metadata["provenance"][0]["licence"] == "CC0-1.0"


def test_image_sample_is_its_captions_then_its_codes(tmp_path: Path) -> None:
    folder, _ = write(tmp_path)
    sample = samples_of(folder, "image")[-1]
    text, image = sample.segments
    assert isinstance(text, TextSegment)
    assert [(each.text, each.kind) for each in text.captions] == [
        ("a red square", "original"),
        ("a square", "caption"),
    ]
    assert isinstance(image, ImageSegment)
    assert image.codes.dtype == np.uint16
    assert image.codes.tolist() == [[11, 12], [13, 14]]
    assert [each["kind"] for each in sample.variants] == ["style", "negative"]


@pytest.mark.parametrize(("per_document", "lengths"), [(1, [1, 1, 1]), (2, [2, 1]), (4, [3])])
def test_mixed_documents_are_images_each_followed_by_its_captions(
    tmp_path: Path, per_document: int, lengths: list[int]
) -> None:
    folder, _ = write(tmp_path, records_per_document=per_document)
    samples = samples_of(folder, "mixed")
    assert [len(sample.metadata["record_ids"]) for sample in samples] == lengths
    for sample in samples:
        kinds = [type(segment) for segment in sample.segments]
        assert kinds == [ImageSegment, TextSegment] * (len(kinds) // 2)
    last = samples[-1].segments[-2]
    assert isinstance(last, ImageSegment)
    assert last.codes.tolist() == [[12, 13], [14, 15]]


def write_selected(root: Path, *selected: Selected) -> list[Sample]:
    work = shard_work(root, write_part(root, "part", selected))
    ShardWorker(ShardSettings(), text_models())(work)
    return samples_of(written_by(work), selected[0].stream)


def test_a_document_is_one_sample_in_its_order_with_texts_that_have_no_image(
    tmp_path: Path,
) -> None:
    def piece(document: str, position: int, *, has_image: bool) -> Selected:
        name = f"{document}{position}"
        return Selected(
            record_id=name, stream="mixed", caption=name, document=document, position=position,
            has_image=has_image,
        )  # fmt: skip

    alone, short, *long = write_selected(
        tmp_path,
        Selected(record_id="single", stream="mixed"),
        piece("d", 4, has_image=True),
        *(piece("e", position, has_image=position != 2) for position in range(5)),
        piece("d", 0, has_image=False),
    )
    assert alone.metadata["record_ids"] == ["single"]
    assert short.metadata["record_ids"] == ["d0", "d4"]
    first, image, second = short.segments
    assert isinstance(first, TextSegment)
    assert isinstance(second, TextSegment)
    assert isinstance(image, ImageSegment)
    assert (first.captions[0].text, second.captions[0].text) == ("d0", "d4")
    assert image.codes.tolist() == [[1, 2], [3, 4]]
    assert [sample.metadata["record_ids"] for sample in long] == [["e0", "e1", "e2", "e3", "e4"]]
    pictures = [each for each in long[0].segments if isinstance(each, ImageSegment)]
    assert [each.codes[0, 0] for each in pictures] == [2, 3, 5, 6]


def test_further_captions_stand_beside_the_first(tmp_path: Path) -> None:
    more = [("de", "ein rotes Quadrat"), ("a/b.c", "RED")]
    (sample,) = write_selected(
        tmp_path, Selected(record_id="a", stream="image", more_captions=more)
    )
    text, _ = sample.segments
    assert isinstance(text, TextSegment)
    assert [(each.text, each.variant_id) for each in text.captions] == [
        ("a red square", "original"),
        ("ein rotes Quadrat", "original-de"),
        ("RED", "original-a/b.c"),
    ]


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first, _ = write(tmp_path / "first")
    second, _ = write(tmp_path / "second")
    for name in NAMES.values():
        assert hash_file(first / name) == hash_file(second / name)


def test_a_tar_says_nothing_of_its_writer(tmp_path: Path) -> None:
    folder, _ = write(tmp_path)
    with tarfile.open(folder / "image-000000.tar") as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {
        (0, 0, 0, "", "", 0o644)
    }
    assert not any(member.pax_headers for member in members)
    for key in {member.name.partition(".")[0] for member in members}:
        held = [n for n, member in enumerate(members) if member.name.startswith(f"{key}.")]
        assert held == list(range(held[0], held[0] + 2))


def test_a_selected_image_that_tokenize_has_rejected_is_left_out(tmp_path: Path) -> None:
    inputs = write_part(tmp_path, "part", SELECTED, with_tokens=False)
    worker = ShardWorker(ShardSettings(), text_models())
    rows = worker(shard_work(tmp_path, inputs)).rows
    assert {row["stream"] for row in rows} == {"text"}
    assert not list((tmp_path / "shards").rglob("image*"))


@pytest.mark.parametrize("stream", ["text", "image", "mixed"])
def test_stock_webdataset_reads_the_shards(tmp_path: Path, stream: str) -> None:
    folder, _ = write(tmp_path)
    path = folder / NAMES[f"{stream}/train"]
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == [each.key for each in read_shard(path)]
    if stream == "text":
        assert samples[0]["txt"] == "only <img> text"
    else:
        assert samples[0]["codes.npy"].shape[-2:] == (2, 2)
    assert samples[0]["json"]["record_ids"]


@pytest.mark.parametrize(("form", "extension"), [("webp", "webp"), ("jpeg", "jpg")])
def test_samples_of_the_image_stream_can_carry_their_pictures(
    tmp_path: Path, form: str, extension: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    pictures = PictureSettings(format=form, size=8, quality=95)
    folder, _ = write(tmp_path / "a", pictures=pictures)
    again, _ = write(tmp_path / "b", pictures=pictures)
    name = NAMES["image/train"]
    assert hash_file(folder / name) == hash_file(again / name)
    records = read_table(tmp_path / "a" / "records" / "part.parquet").to_pylist()
    images = {row["record_id"]: row["image"] for row in records}
    samples = list(webdataset.WebDataset(str(folder / name), shardshuffle=False).decode("pil"))
    assert [sample["__key__"] for sample in samples] == ["b", *(f"f{n}" for n in range(6)), "g"]
    for sample in samples:
        wanted = decode(images[sample["__key__"]]).resize((8, 8))
        found = sample[extension]
        assert found.size == (8, 8)
        assert np.abs(np.asarray(found, float) - np.asarray(wanted, float)).mean() < 25
    assert len(samples_of(folder, "image")) == len(samples)
    with tarfile.open(folder / NAMES["mixed/train"]) as tar:
        assert not [name for name in tar.getnames() if name.endswith(extension)]
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    read = datasets.load_dataset(
        "webdataset", data_files=[str(folder / name)], split="train", cache_dir=str(tmp_path)
    )
    assert read[-1][extension].size == (8, 8)


def test_crops_stand_behind_their_picture_in_the_image_stream(tmp_path: Path) -> None:
    many = [Selected(record_id=f"{n}", stream="image", num_crops=2) for n in range(2)]
    image, _ = write_selected(tmp_path / "image", *many)
    _, segment = image.segments
    assert isinstance(segment, ImageSegment)
    assert segment.codes.tolist() == [[0, 1], [2, 3]]
    assert segment.crops[:, 0, 0].tolist() == [100, 200]
    (path,) = (tmp_path / "image").rglob("image-*.tar")
    _, sample = webdataset.WebDataset(str(path), shardshuffle=False).decode()
    assert sample["codes.npy"].shape == (3, 2, 2)
    assert len(sample["json"]["boxes"]) == 3
    index = ShardIndex.open(path.with_suffix(".index"))
    content = path.read_bytes()
    at, picture = int(index.at[3]), 8
    for number, crc32 in enumerate(index.crop_crc32[index.first_crop[3] :], start=1):
        start = at + number * picture
        assert zlib.crc32(content[start : start + picture]) == crc32
        assert np.frombuffer(content[start : start + picture], "<u2")[0] == 1 + 100 * number
    (mixed,) = write_selected(
        tmp_path / "mixed", Selected(record_id="a", stream="mixed", num_crops=2)
    )
    assert isinstance(mixed.segments[0], ImageSegment)
    assert len(mixed.segments[0].crops) == 0


def test_a_sample_of_576_codes_and_a_caption_of_20_words_takes_3072_bytes(tmp_path: Path) -> None:
    caption = (
        "a brown dog lies asleep on the worn red sofa in front of a large window with rain on it"
    )
    assert len(caption.split()) == 20
    selected = [Selected(record_id=f"{n:016x}", stream="image", caption=caption) for n in range(3)]
    inputs = write_part(tmp_path, "part", selected)
    rows = read_table(inputs["tokens"]).to_pylist()
    bits = 14
    (codes,) = pack(np.arange(576, dtype=np.uint16).reshape(1, 24, 24) * 28, bits)
    grid = {"rows": 24, "columns": 24, "bits": bits, "codes": codes}
    write_table(inputs["tokens"], [row | grid for row in rows], TOKENS)
    work = shard_work(tmp_path, inputs)
    ShardWorker(ShardSettings(), text_models())(work)
    with tarfile.open(written_by(work) / NAMES["image/train"]) as tar:
        members = tar.getmembers()
    assert len(members) == 6
    assert members[2].offset - members[0].offset == 3072


@pytest.mark.parametrize("stream", ["text", "image", "mixed"])
def test_stock_datasets_reads_the_shards(
    tmp_path: Path, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    # Only the last image sample has variants, after the five that types are inferred from.
    folder, _ = write(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    files = [str(folder / NAMES[f"{stream}/train"])]
    read = datasets.load_dataset(
        "webdataset", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    samples = samples_of(folder, stream)
    assert [row["__key__"] for row in read] == [sample.key for sample in samples]
    assert read[-1]["json"]["record_ids"] == samples[-1].metadata["record_ids"]
    if stream == "image":
        assert read[-1]["codes.npy"] == [[11, 12], [13, 14]]
        assert read[-1]["json"]["variants"].count("\n") == 1


def test_bridged_records_are_one_document_with_the_texts_that_lead_on(tmp_path: Path) -> None:
    def link(record_id: str, next_id: str | None) -> Selected:
        bridge = ((f"v{record_id}", "interleave", f"on from {record_id}"),) if next_id else ()
        return Selected(record_id=record_id, stream="mixed", variants=bridge, next_id=next_id)

    samples = write_selected(
        tmp_path, link("c", None), link("x", None), link("a", "b"), link("b", "c")
    )
    assert [sample.metadata["record_ids"] for sample in samples] == [["a", "b", "c"], ["x"]]
    shown = [
        "picture" if isinstance(segment, ImageSegment) else segment.captions[0].text
        for segment in samples[0].segments
    ]
    caption = "a red square"
    assert shown == [
        "picture", caption, "on from a", "picture", caption, "on from b", "picture", caption,
    ]  # fmt: skip


def test_text_that_leads_to_a_record_without_codes_is_rejected(tmp_path: Path) -> None:
    bridge = (("v", "interleave", "on"),)
    selected = [Selected(record_id="a", stream="mixed", variants=bridge, next_id="gone")]
    work = shard_work(tmp_path, write_part(tmp_path, "part", selected))
    output = ShardWorker(ShardSettings(), text_models())(work)
    assert [(row["variant_id"], row["reason"]) for row in output.rejects] == [
        ("v", "bridge-without-end")
    ]
    assert output.rows[0]["variant_ids"] == ["a/original"]


def test_text_about_a_subject_is_a_sample_of_the_text_stream(tmp_path: Path) -> None:
    prose = (("v", "text", "What is a square? It is a form."),)
    selected = [Selected(record_id="a", stream="image", variants=prose)]
    work = shard_work(tmp_path, write_part(tmp_path, "part", selected))
    rows = ShardWorker(ShardSettings(), text_models())(work).rows
    assert [(row["key"], row["stream"], row["record_ids"]) for row in rows] == [
        ("a", "image", ["a"]), ("a-v", "text", []),
    ]  # fmt: skip
    (sample,) = samples_of(written_by(work), "text")
    assert sample.segments[0] == TextSegment(captions=(Caption(text=prose[0][2]),))
    assert (sample.metadata["kind"], sample.metadata["record_ids"]) == ("text", ["a"])
    assert samples_of(written_by(work), "image")[0].variants == ()


def test_a_shard_has_no_more_samples_and_bytes_than_the_recipe_allows(tmp_path: Path) -> None:
    whole, rows = write(tmp_path / "whole")
    size = (whole / NAMES["image/train"]).stat().st_size
    for settings in ({"max_samples": 3}, {"max_mb": size / 2e6}, {"max_mb": 1e-6}):
        folder, cut = write(tmp_path / str(settings), **settings)
        assert [row["key"] for row in cut] == [row["key"] for row in rows]
        shards = [f"image-{n:06}.tar" for n in range(len(list(folder.glob("image-0*.tar"))))]
        assert len(shards) >= 2
        read = {name: list(read_shard(folder / name)) for name in shards}
        assert [sample.metadata for held in read.values() for sample in held] == [
            sample.metadata for sample in samples_of(whole, "image")
        ]
        for name, held in read.items():
            assert [each.key for each in held] == [
                row["key"] for row in cut if row["shard"] == name and row["stream"] == "image"
            ]
            assert len(held) <= settings.get("max_samples", 100)
            assert len(held) == 1 or (folder / name).stat().st_size <= size
