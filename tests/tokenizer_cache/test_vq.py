import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pipeline.engine.fingerprint import hash_bytes, hash_folder
from pipeline.engine.schemas import RECORDS
from pipeline.engine.tables import read_table, write_table
from pipeline.errors import UserError
from pipeline.images import decode
from tests.tokenizer_cache.corpus import (
    TINY_GRID,
    TINY_VQ,
    Selected,
    encode_work,
    fit_inputs,
    png,
    shard_work,
    write_part,
    written_by,
)
from tokenizer_cache.encode import EncodeWorker
from tokenizer_cache.packed_codes import unpack
from tokenizer_cache.settings import ShardSettings, TextSettings, TokenizeSettings, VQSettings
from tokenizer_cache.shard_reading import ImageSegment, read_shard
from tokenizer_cache.shards import ShardWorker
from tokenizer_cache.text import describe_text
from tokenizer_cache.text import fit as fit_text
from tokenizer_cache.vocabulary import build_vocabulary
from tokenizer_cache.vq.description import describe_vq
from tokenizer_cache.vq.model import VQModel, to_tensor
from tokenizer_cache.vq.quality import ssims
from tokenizer_cache.vq.tokenizer import load_vq
from tokenizer_cache.vq.train import fit

SELECTED = [
    Selected(record_id=f"r{n}", stream="image", split="validation" if n % 10 == 0 else "train")
    for n in range(30)
]


def fitted(root: Path, folder: Path) -> Path:
    folder.mkdir(parents=True)
    inputs = fit_inputs(write_part(root, "part", SELECTED))
    with pytest.MonkeyPatch.context() as patch:  # what a killed test left is no start for it
        patch.setenv("ANYMIX_CACHE", str(root / "cache"))
        progress = list(fit(TINY_VQ, inputs, folder))
    assert [each.done for each in progress] == list(range(1, TINY_VQ.steps + 1))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vq")
    return fitted(root, root / "model")


def test_training_lowers_the_error_and_reports_held_out_quality(model: Path) -> None:
    metrics = json.loads((model / "metrics.json").read_text())
    assert metrics["split"] == "validation"
    assert metrics["num_images"] == 3
    assert metrics["num_train_images"] == 27
    assert metrics["psnr"] >= metrics["curve"][0]["psnr"]
    assert 0 < metrics["codebook_usage"] <= 1
    assert 1 <= metrics["perplexity"] <= TINY_VQ.codebook_size
    with Image.open(model / "reconstructions.png") as sheet:
        assert sheet.size == (12 * 16, 2 * 16)


def test_the_same_images_and_seed_give_the_same_files(tmp_path: Path, model: Path) -> None:
    again = fitted(tmp_path, tmp_path / "again")
    assert hash_folder(again) == hash_folder(model)


@pytest.mark.parametrize("step", [4, 7])
def test_a_training_that_is_killed_goes_on_to_the_same_files(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Before and after the start of the codebook."""
    monkeypatch.setenv("ANYMIX_CACHE", str(tmp_path / "cache"))
    inputs, again = fit_inputs(write_part(tmp_path, "part", SELECTED)), tmp_path / "again"
    again.mkdir()
    killed = fit(TINY_VQ, inputs, again)
    while next(killed).done < step:
        pass
    killed.close()
    torch.manual_seed(99)  # what another process would have in its generator
    assert next(iter(fit(TINY_VQ, inputs, again))).done == step + 1
    assert next(each.done for each in list(fit(TINY_VQ, inputs, again))) == step + 2
    assert hash_folder(again) == hash_folder(model)
    assert not list((tmp_path / "cache").glob("models/*"))


def test_codes_and_images_have_the_shapes_that_the_vocabulary_tells(model: Path) -> None:
    tokenizer, description = load_vq(model), describe_vq(model)
    assert description.grid == TINY_GRID
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    codes = tokenizer.encode(images)
    assert codes.shape == (3, *TINY_GRID)
    assert int(codes.max()) < description.num_tokens
    assert tokenizer.decode(codes).shape == images.shape
    pictures = tokenizer.decode_images(codes.numpy())
    assert tokenizer.encode_images(pictures).shape == (3, *TINY_GRID)


def test_a_corpus_without_pictures_is_an_error_for_people(tmp_path: Path) -> None:
    inputs = fit_inputs(write_part(tmp_path, "part", [Selected(record_id="r", stream="text")]))
    with pytest.raises(UserError, match="no pictures"):
        list(fit(TINY_VQ, inputs, tmp_path))


@pytest.mark.parametrize("stride", [4, 16])
def test_other_strides_give_other_grids(stride: int) -> None:
    settings = VQSettings(image_size=32, stride=stride, codebook_size=4, width=16, depth=1, steps=1)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    reconstructions, codes, _ = VQModel(settings)(images)
    assert codes.shape == (2, 32 // stride, 32 // stride)
    assert reconstructions.shape == images.shape


def test_a_stride_that_does_not_divide_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="power of two"):
        VQSettings(stride=12)


def test_each_distinct_image_is_encoded_once(tmp_path: Path, model: Path) -> None:
    inputs = write_part(tmp_path, "part", [*SELECTED, Selected(record_id="t", stream="text")])
    worker = EncodeWorker(TokenizeSettings(), {"vq": model})
    rows = list(worker(encode_work(tmp_path, inputs)).rows)
    records = read_table(inputs["records"], ["image_id"]).column(0).drop_null().unique()
    assert [row["image_id"] for row in rows] == records.to_pylist()
    assert list(worker(encode_work(tmp_path, inputs)).rows) == rows


def test_one_picture_in_64_says_how_well_it_is_rendered(tmp_path: Path, model: Path) -> None:
    many = [Selected(record_id=f"r{n}", stream="image") for n in range(150)]
    inputs = write_part(tmp_path, "part", many, with_tokens=False)
    rows = EncodeWorker(TokenizeSettings(), {"vq": model})(encode_work(tmp_path, inputs)).rows
    measured = [row for row in rows if row["squared_error"] is not None]
    assert 0 < len(measured) < len(rows) / 20
    records = read_table(inputs["records"], ["image_id", "image"]).to_pylist()
    pictures = {record["image_id"]: record["image"] for record in records}
    tokenizer = load_vq(model)
    for row in measured:
        codes = unpack(row)[None]
        picture = np.asarray(decode(pictures[row["image_id"]]))[None]
        (error,) = tokenizer.squared_errors(picture, codes)
        assert row["squared_error"] == pytest.approx(float(error), rel=1e-4)


def test_crops_are_squares_of_the_image_and_follow_from_its_hash(
    tmp_path: Path, model: Path
) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (20, 44, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(wide).save(stream, "PNG")
    inputs = write_part(tmp_path, "part", SELECTED[:1], with_tokens=False)
    records = read_table(inputs["records"]).to_pylist()
    image_id = hash_bytes(stream.getvalue())
    changed = [row | {"image": stream.getvalue(), "image_id": image_id} for row in records]
    write_table(inputs["records"], changed, RECORDS)
    rows = EncodeWorker(TokenizeSettings(crops=3), {"vq": model})(
        encode_work(tmp_path, inputs)
    ).rows
    assert [row["view"] for row in rows] == [0, 1, 2, 3]
    assert rows[0]["box"] == (12, 0, 32, 20)
    tokenizer = load_vq(model)
    for row in rows:
        left, top, right, bottom = row["box"]
        assert 10 <= right - left == bottom - top <= 20
        assert 0 <= left < right <= 44
        assert 0 <= top < bottom <= 20
        whole = Image.fromarray(wide)
        cut = whole.crop(row["box"]) if row["view"] else whole
        assert np.array_equal(unpack(row), tokenizer.encode_images([cut])[0])


def test_from_pictures_to_samples_and_back_to_pictures(tmp_path: Path, model: Path) -> None:
    from pipeline.engine.token_schemas import TOKENS

    inputs = write_part(tmp_path, "part", SELECTED, with_tokens=False)
    rows = EncodeWorker(TokenizeSettings(), {"vq": model})(encode_work(tmp_path, inputs)).rows
    write_table(inputs["tokens"], rows, TOKENS)
    text = tmp_path / "text"
    text.mkdir()
    list(fit_text(TextSettings(vocab_size=300), fit_inputs(inputs), text))
    vocabulary = build_vocabulary(describe_text(text), describe_vq(model))
    work = shard_work(tmp_path, inputs)
    ShardWorker(ShardSettings(), {"text": text})(work)
    images = [
        segment.codes
        for path in sorted(written_by(work).glob("*.tar"))
        for sample in read_shard(path)
        for segment in sample.segments
        if isinstance(segment, ImageSegment)
    ]
    assert len(images) == len(SELECTED)
    assert {each.shape for each in images} == {vocabulary.image.grid}
    pictures = load_vq(model).decode_images(np.stack(images))
    assert {picture.size for picture in pictures} == {(16, 16)}


@pytest.mark.parametrize(
    "quantizer",
    [
        {"quantizer": "fsq", "fsq_levels": (4, 4)},
        {"quantizer": "lfq"},
        {"gradient": "straight-through"},
    ],
    ids=lambda settings: next(iter(settings.values())),
)
def test_other_quantizers_train_and_come_back_from_their_file(
    tmp_path: Path, quantizer: dict[str, Any]
) -> None:
    settings = VQSettings(**{**TINY_VQ.model_dump(), **quantizer})
    folder = tmp_path / "model"
    folder.mkdir()
    list(fit(settings, fit_inputs(write_part(tmp_path, "part", SELECTED)), folder))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["curve"][-1]["loss"] < 2 * metrics["curve"][0]["loss"]
    tokenizer = load_vq(folder)
    codes = tokenizer.encode_images([decode(png(seed)) for seed in range(20)])
    assert codes.max() < 16
    first, again = (load_vq(folder).decode(torch.from_numpy(codes.astype(int))) for _ in range(2))
    assert torch.equal(first, again)
    # What the codes decode to is what the training saw.
    images = to_tensor(torch.from_numpy(np.stack([np.asarray(decode(png(0)))])))
    model = VQModel(settings).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    with torch.inference_mode():
        seen, held, _ = model(images)
        torch.testing.assert_close(model.decode(held), seen.clamp(-1, 1))


def test_the_curve_counts_codes_that_no_step_uses(model: Path) -> None:
    curve = json.loads((model / "metrics.json").read_text())["curve"]
    assert all(0 <= point["dead_codes"] < TINY_VQ.codebook_size for point in curve)
    assert all(-1 <= point["ssim"] <= 1 for point in curve)


def test_structural_similarity_is_1_of_the_same_and_its_formula_of_flat_images() -> None:
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    torch.testing.assert_close(ssims(images, images), torch.ones(3))
    assert (ssims(images, -images) < 0).all()
    flat, other = torch.full((1, 3, 16, 16), 0.5), torch.full((1, 3, 16, 16), -0.25)
    # As intensities from 0 to 1 they are 0.75 and 0.375.
    expected = (2 * 0.75 * 0.375 + 0.01**2) / (0.75**2 + 0.375**2 + 0.01**2)
    torch.testing.assert_close(ssims(flat, other), torch.tensor([expected]), atol=1e-3, rtol=0)


def test_a_preset_gives_what_the_recipe_does_not_say() -> None:
    large = VQSettings(preset="256px", steps=7)
    assert (large.image_size // large.stride, large.codebook_size, large.ema_decay) == (
        32, 8192, 0.99,
    )  # fmt: skip
    assert large.steps == 7
    assert VQSettings.model_validate(large.model_dump()) == large
    assert describe_size("tiny") == (8, 256)
    assert describe_size("128px") == (16, 4096)


def describe_size(preset: str) -> tuple[int, int]:
    settings = VQSettings(preset=preset)
    return settings.image_size // settings.stride, settings.codebook_size


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codebook_size": 65_537}, "less than or equal to 65536"),
        ({"quantizer": "lfq", "codebook_size": 2**18}, "less than or equal to 65536"),
        ({"quantizer": "fsq", "fsq_levels": (8, 8, 8, 6, 6, 6)}, "fsq_levels is 110592, and a cod"),
        ({"quantizer": "fsq"}, "fsq_levels belong to the quantizer fsq"),
        ({"fsq_levels": (8, 8, 8)}, "fsq_levels belong to the quantizer fsq"),
        ({"quantizer": "fsq", "fsq_levels": (8, 8)}, "fsq_levels is 64, and codebook_size 512"),
        ({"quantizer": "lfq", "codebook_size": 100}, "power of two of codes"),
        ({"quantizer": "lfq", "gradient": "straight-through"}, "quantizer vq alone"),
    ],
)
def test_settings_without_an_effect_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VQSettings(**settings)
