"""Published tokenizers, shrunk and randomly initialised, beside what transformers makes of them.

Legend: B batch, h w code grid, K codebook size.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from safetensors.torch import save_file
from transformers import ChameleonImageProcessorPil, Emu3ImageProcessor, JanusImageProcessorPil

from pipeline.engine.fingerprint import hash_folder
from pipeline.errors import UserError
from tests.tokenizer_cache.corpus import Selected, encode_work, fit_inputs, write_part
from tests.tokenizer_cache.published_models import GRID, NUM_CODES, SIZE, janus, saved
from tokenizer_cache.encode import EncodeWorker, squares
from tokenizer_cache.settings import PublishedVQSettings, TokenizeSettings
from tokenizer_cache.vq.adopt import adopt, fit
from tokenizer_cache.vq.description import describe_vq
from tokenizer_cache.vq.tokenizer import VQTokenizer, load_vq


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        yield


def adopted(kind: str, weights: Path, folder: Path, **settings: Any) -> VQTokenizer:
    folder.mkdir()
    adopt(PublishedVQSettings(kind=kind, weights=str(weights), **settings), folder)
    return load_vq(folder)


def pictures(*sizes: tuple[int, int]) -> list[Image.Image]:
    random = np.random.default_rng(0)
    small = [random.integers(0, 256, (4, 4, 3), dtype=np.uint8) for _ in sizes]
    return [Image.fromarray(each).resize(size) for each, size in zip(small, sizes, strict=True)]


PICTURES = pictures((16, 16), (40, 24), (9, 33))


def middle(image: Image.Image) -> Image.Image:
    """Its middle square, as Janus cuts pictures for generation (arXiv:2410.13848, section 4.1)."""
    side = min(image.size)
    return ImageOps.fit(image, (side, side), Image.Resampling.NEAREST)


def theirs(kind: str, model: Any, images: list[Image.Image], folder: Path) -> torch.Tensor:
    """The codes (B, h, w) of transformers' own processor and `encode`."""
    processors = {
        "janus": JanusImageProcessorPil,
        "chameleon": ChameleonImageProcessorPil,
        "emu3": Emu3ImageProcessor,
    }
    processor = processors[kind].from_pretrained(folder)
    if kind == "janus":  # whose processor is that of the encoder for understanding
        images = [middle(each) for each in images]
    values = torch.cat([processor(each, return_tensors="pt")["pixel_values"] for each in images])
    if kind == "emu3":
        codes = model.encode(values, torch.tensor([[SIZE, SIZE]] * len(images))).image_tokens
        return torch.stack(codes)
    return model.encode(values).image_tokens.view(len(images), *GRID)


@pytest.mark.parametrize("kind", ["janus", "chameleon", "emu3"])
def test_codes_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    model = saved(kind, tmp_path / "weights")
    tokenizer = adopted(kind, tmp_path / "weights", tmp_path / "vq")
    images = PICTURES[:1] if kind == "emu3" else PICTURES  # Emu3 keeps an image's shape
    codes = tokenizer.encode_images(images)
    assert codes.dtype == np.uint16
    assert (codes == theirs(kind, model, images, tmp_path / "weights").numpy()).all()
    assert len(np.unique(codes)) > 4
    description = describe_vq(tmp_path / "vq")
    assert (description.grid, description.num_tokens) == (GRID, NUM_CODES)


@pytest.mark.parametrize("kind", ["janus", "chameleon", "emu3"])
@pytest.mark.parametrize("size", [(40, 24), (9, 33)])
def test_a_picture_is_cut_and_never_filled_up(
    kind: str, size: tuple[int, int], tmp_path: Path
) -> None:
    saved(kind, tmp_path / "weights")
    tokenizer = adopted(kind, tmp_path / "weights", tmp_path / "vq")
    picture = Image.new("RGB", size, "red")
    (box,) = squares("an image", size, 1)
    outside = np.asarray(picture).copy()
    outside[:] = (0, 0, 255)
    outside[box[1] : box[3], box[0] : box[2]] = (255, 0, 0)
    for image in (picture, Image.fromarray(outside)):
        seen = tokenizer.show(tokenizer.prepare(image)[None])[0].astype(int)  # (H, W, 3)
        inside = seen if image is picture else seen[3:-3, 3:-3]  # scaling blurs what it cuts at
        assert (abs(inside - [255, 0, 0]) <= 10).all()


def test_janus_is_known_to_cut_and_a_training_of_before_goes_on_as_it_was(tmp_path: Path) -> None:
    for kind in ("janus", "chameleon", "emu3"):
        saved(kind, tmp_path / kind)
        adopted(kind, tmp_path / kind, tmp_path / f"{kind}-vq")
    held = {
        kind: json.loads((tmp_path / f"{kind}-vq" / "settings.json").read_text())
        for kind in ("janus", "chameleon", "emu3")
    }
    assert held["janus"].pop("cuts_square") is True
    names = {"kind", "image_size", "stride", "codebook_size"}  # as before: other codes stay
    assert [each.keys() for each in held.values()] == [names] * 3
    (tmp_path / "janus-vq" / "settings.json").write_text(json.dumps(held["janus"]))
    before = load_vq(tmp_path / "janus-vq")
    processor = JanusImageProcessorPil.from_pretrained(tmp_path / "janus")
    filled_up = processor(PICTURES[1], return_tensors="np")["pixel_values"][0]
    assert (before.prepare(PICTURES[1]) == filled_up).all()


@pytest.mark.parametrize("kind", ["janus", "emu3"])
def test_images_of_codes_are_those_of_transformers_bit_for_bit(kind: str, tmp_path: Path) -> None:
    model = saved(kind, tmp_path / "weights")
    tokenizer = adopted(kind, tmp_path / "weights", tmp_path / "vq")
    codes = torch.randint(NUM_CODES, (2, *GRID))
    expected = model.decode(codes.flatten(1) if kind == "janus" else codes)
    assert torch.equal(tokenizer.decode(codes), expected)
    assert {each.size for each in tokenizer.decode_images(codes.numpy())} == {(SIZE, SIZE)}


def test_a_codebook_of_other_lengths_gives_januss_own_codes(tmp_path: Path) -> None:
    model = janus(unit_codes=False)
    model.save_pretrained(tmp_path / "weights")
    JanusImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(
        tmp_path / "weights"
    )
    tokenizer = adopted("janus", tmp_path / "weights", tmp_path / "vq")
    values = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    # As in VectorQuantizer.forward of Janus and LlamaGen, with `codebook_l2_norm`.
    hidden = F.normalize(model.quant_conv(model.encoder(values)), dim=1)
    codebook = F.normalize(model.quantize.embedding.weight, dim=-1)  # (K, D)
    nearest = torch.einsum("bdhw,kd->bhwk", hidden, codebook).argmax(dim=-1)  # (B, h, w)
    assert torch.equal(tokenizer.encode(values), nearest)
    codes = torch.randint(NUM_CODES, (2, *GRID))
    assert torch.equal(tokenizer.decode(codes), model.decode(codes.flatten(1)))


def as_llamagen(name: str) -> str:
    """The name of a tensor of JanusVQVAE in LlamaGen's own code."""
    for janus_name, llamagen_name in (
        ("encoder.down.", "encoder.conv_blocks."),
        ("decoder.up.", "decoder.conv_blocks."),
        ("mid.block_1.", "mid.0."),
        ("mid.attn_1.", "mid.1."),
        ("mid.block_2.", "mid.2."),
        (".block.", ".res."),
    ):
        name = name.replace(janus_name, llamagen_name)
    return name


def test_llamagens_file_is_read_by_its_names_and_cut_as_llamagen_cuts(tmp_path: Path) -> None:
    model = janus(unit_codes=True)
    state = {as_llamagen(name): value for name, value in model.state_dict().items()}
    state["quantize.codebook_used"] = torch.zeros(65536)
    assert "encoder.conv_blocks.0.res.0.conv1.weight" in state
    torch.save({"model": state, "steps": 3}, tmp_path / "vq_ds16_t2i.pt")
    tokenizer = adopted("llamagen", tmp_path / "vq_ds16_t2i.pt", tmp_path / "vq", image_size=SIZE)
    # A picture more than twice as large is halved by boxes first.
    large = pictures((70, 36))[0]
    cut = large.resize((35, 18), Image.Resampling.BOX)
    cut = cut.resize((round(35 * 16 / 18), 16), Image.Resampling.BICUBIC)
    left = (cut.width - 16) // 2
    pixels = np.asarray(cut)[:, left : left + 16]
    values = (
        torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float().div(255).sub(0.5).div(0.5)
    )
    codes = tokenizer.encode_images([large])
    assert (codes == model.encode(values).image_tokens.view(1, *GRID).numpy()).all()
    grid = torch.randint(NUM_CODES, (1, *GRID))
    assert torch.equal(tokenizer.decode(grid), model.decode(grid.flatten(1)))


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {"encoder": io.StringIO}}, tmp_path / "evil.pt")
    (tmp_path / "vq").mkdir()
    settings = PublishedVQSettings(kind="llamagen", weights=str(tmp_path / "evil.pt"))
    with pytest.raises(UserError, match="llamagen: it holds more than tensors"):
        adopt(settings, tmp_path / "vq")


def test_a_whole_models_shards_are_read_no_further_than_the_tokenizer(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    model = saved("janus", whole)
    config = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps({"model_type": "janus", "vq_config": config}))
    (whole / "model.safetensors").unlink()
    state = {f"model.vqmodel.{name}": value for name, value in model.state_dict().items()}
    save_file(state, whole / "model-00002-of-00002.safetensors")
    held = dict.fromkeys(state, "model-00002-of-00002.safetensors")
    # The first file is not even there.
    held["model.language_model.norm.weight"] = "model-00001-of-00002.safetensors"
    (whole / "model.safetensors.index.json").write_text(json.dumps({"weight_map": held}))
    codes = adopted("janus", whole, tmp_path / "vq").encode_images(PICTURES)
    assert (codes == theirs("janus", model, PICTURES, whole).numpy()).all()


@pytest.mark.parametrize("kind", ["janus", "chameleon", "emu3", "llamagen"])
def test_a_codebook_that_cannot_be_stored_is_refused_before_its_weights_are_saved(
    kind: str, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    if kind == "llamagen":
        state = {
            as_llamagen(name): value for name, value in janus(unit_codes=True).state_dict().items()
        }
        state["quantize.embedding.weight"] = torch.zeros(65_537, 4)
        torch.save({"model": state}, weights)
    else:
        saved(kind, weights)
        config = json.loads((weights / "config.json").read_text())
        config["codebook_size" if kind == "emu3" else "num_embeddings"] = 65_537
        (weights / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        UserError, match="has 65537 codes, and tables and shards hold at most 65536"
    ):
        adopted(kind, weights, tmp_path / "vq")
    assert not list((tmp_path / "vq").iterdir())


def test_another_image_size_gives_another_grid(tmp_path: Path) -> None:
    for kind in ("janus", "chameleon", "emu3"):
        saved(kind, tmp_path / kind)
        tokenizer = adopted(kind, tmp_path / kind, tmp_path / f"{kind}-vq", image_size=32)
        assert tokenizer.encode_images(PICTURES).shape == (3, 16, 16)
        assert describe_vq(tmp_path / f"{kind}-vq").grid == (16, 16)


@pytest.mark.parametrize("kind", ["janus", "chameleon", "emu3"])
def test_a_fit_pins_the_tokenizer_and_measures_it_on_the_corpus(kind: str, tmp_path: Path) -> None:
    saved(kind, tmp_path / "weights")
    settings = PublishedVQSettings(kind=kind, weights=str(tmp_path / "weights"))
    many = [
        Selected(record_id=f"r{n}", stream="image", split="validation" if n < 9 else "train")
        for n in range(40)
    ]
    inputs = write_part(tmp_path, "part", many, with_tokens=False)
    for name in ("vq", "again"):
        (tmp_path / name).mkdir()
        list(fit(settings, fit_inputs(inputs), tmp_path / name))
    assert hash_folder(tmp_path / "vq") == hash_folder(tmp_path / "again")
    metrics = json.loads((tmp_path / "vq" / "metrics.json").read_text())
    assert (metrics["num_images"], metrics["split"]) == (9, "validation")
    assert 0 < metrics["codebook_usage"] <= 1 <= metrics["perplexity"] <= NUM_CODES
    assert (metrics["psnr"] is None) == (kind == "chameleon")
    rows = EncodeWorker(TokenizeSettings(), {"vq": tmp_path / "vq"})(
        encode_work(tmp_path, inputs)
    ).rows
    assert len(rows) == len(many)
    assert {(row["rows"], row["columns"]) for row in rows} == {GRID}
    measured = [row for row in rows if row["squared_error"] is not None]
    assert bool(measured) == (kind != "chameleon")


def test_chameleons_codes_cannot_be_drawn_and_the_error_says_why(tmp_path: Path) -> None:
    saved("chameleon", tmp_path / "weights")
    tokenizer = adopted("chameleon", tmp_path / "weights", tmp_path / "vq")
    with pytest.raises(UserError, match="transformers has its encoder alone"):
        tokenizer.decode_images(np.zeros((1, *GRID), np.uint16))


def test_weights_that_are_not_there_are_an_error_for_people(tmp_path: Path) -> None:
    settings = PublishedVQSettings(kind="janus", weights=str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"gone holds no image tokenizer of the kind janus"):
        adopt(settings, tmp_path)
