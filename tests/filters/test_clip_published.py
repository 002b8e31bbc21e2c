"""CLIP models that somebody has published: random weights, saved locally, beside bare open_clip."""

import io
import json
from functools import cache

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, PreTrainedTokenizerFast

from filters import shared_captions
from filters.clip import load_published, load_scorers
from filters.clip_adopt import fit
from filters.measure import MeasureWorker
from filters.score import ScoreWorker
from filters.settings import AnyClipSettings, MeasureSettings, OpenClipSettings, ScoreSettings
from pipeline.engine.fingerprint import hash_bytes, hash_folder
from pipeline.engine.schemas import PICTURES, RECORDS, SCORES, VARIANTS
from pipeline.engine.stage import FitInputs, Work
from pipeline.engine.tables import read_table, write_table
from pipeline.errors import UserError
from pipeline.settings import Settings
from tests.filters.clip_models import CONFIG, PREPROCESS, saved
from tests.filters.shapes import RECORD

WORDS = ["a", "red", "circle,", "two", "squares;", "left", "of", "it!", "what", "is", "it's", "so."]
LONG = "A red circle is on the left. It is large. And so is the other one: nobody has seen such."
ENDLESS = "a circle and a square and a star " * 5


def adopted(folder, **chosen):
    folder.mkdir()
    found = OpenClipSettings(kind="open_clip", **chosen)
    list(fit(found, FitInputs(tables={}, models={}), folder))
    return found


def record(index, rng):
    """A picture of noise in a size of its own, as JPEG, with a caption of some words."""
    width, height = rng.integers(30, 200, 2)
    noise = Image.fromarray(rng.integers(256, size=(12, 16, 3), dtype=np.uint8))
    stream = io.BytesIO()
    noise.resize((int(width), int(height))).save(stream, "JPEG")
    content = stream.getvalue()
    return RECORD | {
        "record_id": f"r{index:03d}", "image": content, "image_id": hash_bytes(content),
        "width": int(width), "height": int(height), "caption": " ".join(rng.choice(WORDS, 6)),
    }  # fmt: skip


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """70 pictures, more than a batch, with one to three captions, and their scores."""
    root = tmp_path_factory.mktemp("published")
    rng = np.random.default_rng(0)
    records = [record(index, rng) for index in range(70)]
    records[3]["more_captions"] = [{"name": "b", "text": LONG}, {"name": "c", "text": "a star"}]
    records[4]["caption"] = ENDLESS
    found = adopted(root / "clip", model=str(saved(root / "theirs")))
    write_table(root / "records.parquet", records, RECORDS)
    write_table(root / "variants.parquet", [], VARIANTS)
    (root / "captions").mkdir()
    inputs = FitInputs(tables={"records": [root / "records.parquet"]}, models={})
    list(shared_captions.fit(Settings(), inputs, root / "captions"))
    tables = {name: root / f"{name}.parquet" for name in ("records", "variants", "pictures")}
    work = Work(part="p", inputs=tables)
    models_ = {"clip": root / "clip", "captions": root / "captions"}
    rows = MeasureWorker(MeasureSettings(clip=found), models_)(work).rows
    write_table(root / "pictures.parquet", rows, PICTURES)
    rows = ScoreWorker(ScoreSettings(clip=found), models_)(work).rows
    write_table(root / "scores.parquet", rows, SCORES)
    scores = read_table(root / "scores.parquet").to_pylist()
    return root, records, {(row["record_id"], row["variant_id"]): row for row in scores}


def bare_score(folder, content, text):
    """open_clip by itself, as its README has it."""
    place = f"local-dir:{folder}"
    model, preprocess = open_clip.create_model_from_pretrained(place)
    tokenizer = open_clip.get_tokenizer(place)
    with torch.inference_mode():
        picture = preprocess(Image.open(io.BytesIO(content)))[None]
        image = model.encode_image(picture, normalize=True)
        return (image @ model.encode_text(tokenizer([text]), normalize=True).T).item()


def test_scores_are_bare_open_clips(scored):
    root, records, scores = scored
    assert len(scores) == 72
    for each in records[:10]:
        row = scores[each["record_id"], "original"]
        if not row["clip_is_long"]:
            bare = bare_score(root / "theirs", each["image"], each["caption"])
            assert row["clip_score"] == pytest.approx(bare, abs=1e-5)
    bare = bare_score(root / "theirs", records[3]["image"], "a star")
    assert scores["r003", "original-c"]["clip_score"] == pytest.approx(bare, abs=1e-5)


def test_texts_of_any_length_in_one_batch_are_bare_open_clips(scored):
    model = open_clip.create_model(f"local-dir:{scored[0] / 'theirs'}").eval()
    texts = [" ".join(WORDS[:count]) for count in range(9)]
    with torch.inference_mode():
        tokens = open_clip.SimpleTokenizer(context_length=16)(texts)
        expected = model.encode_text(tokens, normalize=True).numpy()
    found = published(scored[0] / "clip").embed_texts(texts)
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-6)


def test_a_long_caption_has_the_mean_and_the_least_of_its_sentences(scored):
    root, records, scores = scored
    row = scores["r003", "original-b"]
    sentences = LONG.replace(". ", ".|").split("|")
    assert len(sentences) == 3
    bare = [bare_score(root / "theirs", records[3]["image"], each) for each in sentences]
    assert row["clip_is_long"]
    assert row["clip_score"] == pytest.approx(np.mean(bare), abs=1e-5)
    assert row["clip_score_min"] == pytest.approx(min(bare), abs=1e-5)


def test_a_sentence_that_does_not_end_is_scored_to_its_end(scored):
    root, records, scores = scored
    row = scores["r004", "original"]
    cut = bare_score(root / "theirs", records[4]["image"], ENDLESS)
    assert row["clip_is_long"]
    assert row["clip_score_min"] < row["clip_score"]
    assert abs(row["clip_score"] - cut) > 1e-4


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from([*WORDS, "。", "\n", "it. And", "x" * 40]), max_size=60))
def test_no_word_of_a_text_is_left_out(scored, words):
    text = " ".join(words)
    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    pieces = published(scored[0] / "clip").tokenize(text)
    assert (len(pieces) > 1) == (len(tokenizer.encode(text)) > 14)
    read = pieces[(pieces > 0) & (pieces < tokenizer.sot_token_id)]
    assert read.tolist() == [token for token in tokenizer.encode(text) if token > 0]


@cache
def published(folder):
    return load_published(folder, "fp32")


def test_a_text_that_is_there_twice_is_embedded_once(scored, monkeypatch):
    seen = []
    bare = torch.nn.Embedding.forward

    def forward(self, tokens):
        seen.append(len(tokens))
        return bare(self, tokens)

    monkeypatch.setattr(torch.nn.Embedding, "forward", forward)
    found = published(scored[0] / "clip").embed_texts(["a star", "a circle", "a star"])
    assert seen == [2]
    np.testing.assert_array_equal(found[0], found[2])


def test_what_was_copied_does_not_depend_on_where_it_was(tmp_path):
    theirs = saved(tmp_path / "theirs")
    for name, place in (("a", str(theirs)), ("b", f"local-dir:{theirs}")):
        adopted(tmp_path / name, model=place)
    assert hash_folder(tmp_path / "a") == hash_folder(tmp_path / "b")
    (theirs / "open_clip_model.safetensors").unlink()
    load_scorers(tmp_path / "a", OpenClipSettings(kind="open_clip", model="local-dir:x"))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_lower_precision_moves_scores_a_little(scored, precision):
    root, records, scores = scored
    found = OpenClipSettings(kind="open_clip", model="local-dir:x", precision=precision)
    low = load_scorers(root / "clip", found)
    one = records[0]
    prepared = low.prepare(Image.open(io.BytesIO(one["image"])))
    (picture,) = low.embed_images([one["image_id"]], [prepared])
    (text,) = low.embed_texts([one["image_id"]], [one["caption"]])
    assert picture.dtype == text.dtype == np.float32
    assert np.linalg.norm(picture) == pytest.approx(1, abs=1e-6)
    assert picture @ text[0] == pytest.approx(scores["r000", "original"]["clip_score"], abs=0.02)


def test_a_text_tower_and_tokenizer_of_transformers_need_no_hub(tmp_path):
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "star": 5, "red": 6}
    bare = Tokenizer(models.WordLevel(vocabulary))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, **special)
    small = BertConfig(
        vocab_size=7, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=16,
    )  # fmt: skip
    hub = tmp_path / "bert"  # stands for a name on the hub
    tokenizer.save_pretrained(hub)
    small.save_pretrained(hub)
    text = {
        "hf_model_name": str(hub), "hf_tokenizer_name": str(hub), "hf_proj_type": "mlp",
        "hf_pooler_type": "mean_pooler", "hf_model_pretrained": False, "context_length": 8,
    }  # fmt: skip
    theirs = saved(tmp_path / "theirs", {**CONFIG, "custom_text": True, "text_cfg": text})
    tokenizer.save_pretrained(theirs)
    model = open_clip.create_model(f"local-dir:{theirs}").eval()
    with torch.inference_mode():
        ids = tokenizer(["a red star"], padding="max_length", max_length=8, return_tensors="pt")
        expected = model.encode_text(ids.input_ids, normalize=True).numpy()
    found = adopted(tmp_path / "clip", model=str(theirs))
    (hub / "config.json").unlink()
    scorers = load_scorers(tmp_path / "clip", found)
    texts = scorers.embed_texts(["0" * 8] * 2, ["a red star", "a red star " * 4])
    np.testing.assert_allclose(texts[0], expected, atol=1e-6)
    assert len(texts[1]) == 2


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_a_name_of_open_clip_takes_its_weights_from_a_file(tmp_path, ending, monkeypatch):
    theirs = saved(tmp_path / "theirs")
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", CONFIG)
    weights = theirs / "open_clip_model.safetensors"
    if ending == "pt":
        state = load_file(weights)
        weights = tmp_path / "weights.pt"
        torch.save({"state_dict": state}, weights)
    adopted(tmp_path / "clip", model="tiny", pretrained=str(weights))
    ours, bare = (
        open_clip.create_model(f"local-dir:{folder}").state_dict()
        for folder in (tmp_path / "clip", theirs)
    )
    assert all(torch.equal(ours[name], bare[name]) for name in bare)


def test_a_pickle_that_runs_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", CONFIG)
    torch.save({"state_dict": io.StringIO}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="holds more than tensors"):
        adopted(tmp_path / "clip", model="tiny", pretrained=str(tmp_path / "evil.pt"))


@pytest.fixture
def tagged(tmp_path, monkeypatch):
    """A function that gives a model of open_clip's weights with a tag."""
    weights = str(saved(tmp_path / "theirs") / "open_clip_model.safetensors")
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", CONFIG)

    def tag(**about):
        monkeypatch.setitem(
            open_clip.pretrained._PRETRAINED, "tiny", {"tag": {"file": weights, **about}}
        )

    return tag


def test_a_tags_own_preprocessing_is_kept(tagged, tmp_path):
    tagged(**PREPROCESS)
    scorers = load_scorers(
        tmp_path / "clip", adopted(tmp_path / "clip", model="tiny", pretrained="tag")
    )
    _, _, preprocess = open_clip.create_model_and_transforms("tiny", "tag")
    image = Image.fromarray(
        np.random.default_rng(0).integers(256, size=(60, 90, 3), dtype=np.uint8)
    )
    assert torch.equal(scorers.prepare(image), preprocess(image))


def test_weights_for_another_activation_are_refused(tagged, tmp_path):
    tagged(quick_gelu=True)
    with pytest.raises(UserError, match="QuickGELU mismatch"):
        adopted(tmp_path / "clip", model="tiny", pretrained="tag")


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"model": "ViT-B-23", "pretrained": "x"}, "Model config for 'ViT-B-23' not found"),
        ({"model": "ViT-B-32", "pretrained": "laion"}, "not a known tag"),
        ({"model": "local-dir:/gone"}, "/gone"),
    ],
)
def test_a_model_that_is_not_there_is_an_error_for_people(tmp_path, chosen, says):
    with pytest.raises(UserError, match=says):
        adopted(tmp_path / "clip", **chosen)


def test_weights_of_another_shape_are_an_error_for_people(tmp_path):
    theirs = saved(tmp_path / "theirs")
    described = {"model_cfg": {**CONFIG, "embed_dim": 64}, "preprocess_cfg": PREPROCESS}
    (theirs / "open_clip_config.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match="size mismatch"):
        adopted(tmp_path / "clip", model=str(theirs))


def test_folders_are_found_from_the_recipe_and_tags_stay_as_they_are(tmp_path):
    saved(tmp_path / "theirs")
    adapter = TypeAdapter(AnyClipSettings)
    context = {"recipe_folder": tmp_path}

    def read(**chosen):
        return adapter.validate_python({"kind": "open_clip", **chosen}, context=context)

    place = f"local-dir:{tmp_path / 'theirs'}"
    assert read(model="theirs").model == read(model="local-dir:theirs").model == place
    assert read(model="hf-hub:a/b").model == "hf-hub:a/b"
    assert read(model="ViT-B-32", pretrained="openai").pretrained == "openai"
    weights = read(model="ViT-B-32", pretrained="theirs/open_clip_model.safetensors").pretrained
    assert weights == str(tmp_path / "theirs" / "open_clip_model.safetensors")
    for chosen in ({"model": "ViT-B-32"}, {"model": "theirs", "pretrained": "openai"}):
        with pytest.raises(ValidationError, match="pretrained says which weights"):
            read(**chosen)
