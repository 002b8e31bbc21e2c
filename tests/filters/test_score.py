"""The small CLIP and the scores table, on shapes."""

import numpy as np
import pytest
import torch
from open_clip import CLIP
from safetensors.torch import load_file

from filters import shared_captions
from filters.clip import create_model, fold_of, load_scorers, tokenize, weights_name
from filters.clip_bootstrap import fit
from filters.clip_critic import ClipCritic
from filters.measure import MeasureWorker
from filters.perceptual import perceptual_hash, pixel_hash
from filters.score import ScoreWorker
from filters.settings import ClipSettings, MeasureSettings, ScoreSettings
from pipeline import images
from pipeline.engine.schemas import PICTURES, RECORDS, SCORES, VARIANTS
from pipeline.engine.stage import FitInputs, Work
from pipeline.engine.storage import commit_json
from pipeline.engine.tables import read_table, write_table
from pipeline.settings import Settings
from pipeline.sources.shapes import draw
from tests.filters.shapes import RECORD, shape_record

CLIP_SETTINGS = ClipSettings(
    image_size=32, width=32, vision_layers=1, text_layers=1, steps=12, batch_size=32
)
SETTINGS = ScoreSettings(clip=CLIP_SETTINGS)
SENTENCES = [
    "A red circle is on the left of it.", "It is large!", "Nothing else can be seen, you know.",
]  # fmt: skip
LONG = " ".join(SENTENCES)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Tables of 60 shapes and a text, with a CLIP fitted on them."""
    root = tmp_path_factory.mktemp("score")
    text = RECORD | {
        "record_id": "text", "image": None, "image_id": None, "width": None, "height": None,
        "caption": "prose without a picture",
    }  # fmt: skip
    shapes = [shape_record(index) for index in range(60)]
    shapes[4]["more_captions"] = [{"name": "de", "text": "eine Form"}]
    write_table(root / "records.parquet", [*shapes, text], RECORDS)
    variant = dict.fromkeys(VARIANTS.names, "x") | dict.fromkeys(
        (
            "attempt",
            "temperature",
            "top_p",
            "max_tokens",
            "seed",
            "num_prompt_tokens",
            "num_output_tokens",
        ),
        1,
    )
    variants = [
        variant | {"record_id": "r003", "variant_id": "v1", "kind": "caption", "text": "a shape"},
        variant
        | {"record_id": "r003", "variant_id": "v2", "kind": "style", "text": "an oil shape"},
        variant
        | {"record_id": "r003", "variant_id": "v3", "kind": "negative", "text": "a wrong shape"},
        variant | {"record_id": "r005", "variant_id": "v1", "kind": "caption", "text": LONG},
    ]
    write_table(root / "variants.parquet", variants, VARIANTS)
    for model in models_of(root).values():
        model.mkdir()
    inputs = FitInputs(tables={"records": [root / "records.parquet"]}, models={})
    progress = list(fit(CLIP_SETTINGS, inputs, root / "clip"))
    assert (progress[-1].done, progress[-1].total) == (24, 24)
    list(shared_captions.fit(Settings(), inputs, root / "captions"))
    return root


def models_of(corpus):
    """The folders of the models that the scores need."""
    return {name: corpus / name for name in ("clip", "captions")}


def work_on(corpus, **others):
    """The part's tables, where they lie in the corpus."""
    names = ("records", "variants", "pictures")
    return Work(part="p", inputs={name: corpus / f"{name}.parquet" for name in names}, **others)


@pytest.fixture(scope="module")
def pictures(corpus):
    output = MeasureWorker(MeasureSettings(clip=CLIP_SETTINGS), {"clip": corpus / "clip"})(
        work_on(corpus)
    )
    write_table(corpus / "pictures.parquet", output.rows, PICTURES)
    return read_table(corpus / "pictures.parquet").to_pylist()


@pytest.fixture(scope="module")
def scores(corpus, pictures):
    output = ScoreWorker(SETTINGS, models_of(corpus))(work_on(corpus))
    write_table(corpus / "scores.parquet", output.rows, SCORES)
    return read_table(corpus / "scores.parquet").to_pylist()


def test_every_picture_has_a_row_and_a_unit_vector(pictures):
    assert [row["record_id"] for row in pictures] == [f"r{index:03d}" for index in range(60)]
    features = np.asarray([row["image_feature"] for row in pictures])
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)
    assert {(row["short_side"], row["aspect_ratio"]) for row in pictures} == {(32, 1)}


def test_a_picture_has_the_hashes_of_its_pixels_whatever_the_file(pictures):
    for row in pictures:
        image, _ = draw(int(row["record_id"][1:]), size=32, seed=0)
        assert row["pixel_hash"] == pixel_hash(image)
        assert row["perceptual_hash"] == perceptual_hash(image.convert("L"))


def test_a_record_whose_picture_could_not_be_measured_has_no_scores(corpus, pictures, tmp_path):
    measured = [row for row in pictures if row["record_id"] != "r003"]
    write_table(tmp_path / "pictures.parquet", measured, PICTURES)
    inputs = {**work_on(corpus).inputs, "pictures": tmp_path / "pictures.parquet"}
    output = ScoreWorker(SETTINGS, models_of(corpus))(Work(part="p", inputs=inputs))
    assert len(output.rows) == 62
    assert "r003" not in {row["record_id"] for row in output.rows}


def test_every_text_of_every_record_has_a_row(scores):
    assert len(scores) == 66
    assert len({(row["record_id"], row["variant_id"]) for row in scores}) == 66


def test_a_further_caption_is_scored_as_one_of_the_source(scores):
    (row,) = [row for row in scores if row["variant_id"] == "original-de"]
    assert (row["record_id"], row["kind"]) == ("r004", "original")
    assert row["clip_score"] is not None


def test_a_caption_is_counted_over_the_corpus(scores):
    captions = [row["caption"] for row in map(shape_record, range(60))]
    for row in scores[:4]:
        caption = shape_record(int(row["record_id"][1:]))["caption"]
        assert row["num_same_caption"] == captions.count(caption)


def test_a_negative_is_scored_and_is_nobodys_pair(scores):
    (row,) = [row for row in scores if row["kind"] == "negative"]
    assert row["clip_score"] is not None
    assert row["clip_score_shuffled"] is None


def test_clip_scores_are_given_only_to_texts_that_describe_a_picture(scores):
    without = {row["record_id"] + row["kind"] for row in scores if row["clip_score"] is None}
    assert without == {"textoriginal", "r003style"}


def test_the_score_is_bare_open_clips_of_the_model_that_has_not_seen_the_pair(corpus, scores):
    record = shape_record(7)
    fold = fold_of(record["image_id"], CLIP_SETTINGS.folds)
    model: CLIP = create_model(CLIP_SETTINGS).eval()
    model.load_state_dict(load_file(corpus / "clip" / weights_name(fold)))
    pixels = np.asarray(images.decode(record["image"]))
    picture = (torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
    with torch.inference_mode():
        image, text, _ = model(picture, tokenize([record["caption"]], CLIP_SETTINGS))
    (row,) = [row for row in scores if row["record_id"] == "r007"]
    assert row["clip_score"] == pytest.approx((image @ text.T).item(), abs=1e-5)


def test_a_shuffled_score_is_of_another_records_caption(corpus, scores):
    records = {f"r{index:03d}": shape_record(index) for index in range(60)}
    scorers = load_scorers(corpus / "clip", CLIP_SETTINGS)
    for row in scores:
        if row["variant_id"] != "original" or row["clip_score_shuffled"] is None:
            continue
        record = records[row["record_id"]]
        wrong = [
            other["caption"] for other in records.values() if other["caption"] != record["caption"]
        ]
        wrong += ["a shape", "eine Form", LONG]  # but not the negative
        ids = [record["image_id"]] * len(wrong)
        picture = scorers.embed_images(ids[:1], [scorers.prepare(images.decode(record["image"]))])
        possible = [(text @ picture[0]).mean() for text in scorers.embed_texts(ids, wrong)]
        assert np.abs(np.asarray(possible) - row["clip_score_shuffled"]).min() < 1e-5


def test_a_long_caption_is_scored_by_sentence(corpus, scores, pictures):
    record = shape_record(5)
    scorers = load_scorers(corpus / "clip", CLIP_SETTINGS)
    texts = scorers.embed_texts([record["image_id"]] * len(SENTENCES), SENTENCES)
    cosines = [(text @ np.asarray(pictures[5]["image_feature"])).item() for text in texts]
    (row,) = [row for row in scores if row["record_id"] == "r005" and row["variant_id"] == "v1"]
    assert row["clip_is_long"]
    assert row["clip_score"] == pytest.approx(np.mean(cosines), abs=1e-6)
    assert row["clip_score_min"] == pytest.approx(min(cosines), abs=1e-6)
    others = [row for row in scores if row["clip_is_long"] is False]
    assert len(others) == 63
    assert all(row["clip_score"] == row["clip_score_min"] for row in others)


def test_features_of_texts_are_unit_vectors_that_give_the_score_but_for_their_rounding(
    scores, pictures
):
    seen = {row["record_id"]: np.asarray(row["image_feature"]) for row in pictures}
    for row in scores:
        if row["clip_score"] is None:
            assert row["text_feature"] is None
            continue
        text = np.asarray(row["text_feature"], dtype=np.float32)
        assert np.linalg.norm(text) == pytest.approx(1, abs=1e-3)
        if not row["clip_is_long"]:
            assert seen[row["record_id"]] @ text == pytest.approx(row["clip_score"], abs=1e-3)


def test_an_image_of_several_records_is_looked_at_once(corpus, pictures, tmp_path):
    shown: list[tuple[str, ...]] = []
    twice = [shape_record(index) | {"record_id": f"x{index}"} for index in range(3)]
    write_table(tmp_path / "records.parquet", [shape_record(1), *twice], RECORDS)
    work = Work(part="p", inputs={"records": tmp_path / "records.parquet"}, at=shown.append)
    worker = MeasureWorker(MeasureSettings(clip=CLIP_SETTINGS), {"clip": corpus / "clip"})
    rows = worker(work).rows
    assert [row["record_id"] for row in rows] == ["r001", "x0", "x1", "x2"]
    assert shown == [("r001",), ("x0",), ("x2",), ("r001", "x0", "x2")]
    np.testing.assert_array_equal(rows[0]["image_feature"], rows[2]["image_feature"])
    np.testing.assert_allclose(rows[0]["image_feature"], pictures[1]["image_feature"], atol=1e-6)


def test_the_scores_do_not_depend_on_what_was_scored_before(corpus, scores):
    work = work_on(corpus)
    worker = ScoreWorker(SETTINGS, models_of(corpus))
    worker(work)
    write_table(corpus / "again.parquet", worker(work).rows, SCORES)
    assert (corpus / "again.parquet").read_bytes() == (corpus / "scores.parquet").read_bytes()


def test_clip_critic_gives_the_scores_that_the_table_has(corpus, scores):
    commit_json(corpus / "clip" / "model.json", {"settings": CLIP_SETTINGS.model_dump()})
    work = Work(part="p", inputs={"records": corpus / "records.parquet"})
    critic = ClipCritic(corpus / "clip")
    texts = [("r003", {"v1": "a shape"}), ("r004", {"original-de": "eine Form"})]
    found = critic(work, [*texts, ("r003", {"other": "a cat"})])
    stored = {(row["record_id"], row["variant_id"]): row["clip_score"] for row in scores}
    assert found[0]["v1"] == pytest.approx(stored["r003", "v1"], abs=1e-5)
    assert found[1]["original-de"] == pytest.approx(stored["r004", "original-de"], abs=1e-5)
    assert list(found[2]) == ["other"]
