"""A corpus with pictures and sounds, from the source to a model that is trained on both."""

import io
import json
import shutil

import numpy as np
import pytest
import soundfile
from PIL import Image
from rich.console import Console

from jobs.cli import call
from jobs.forgetting import begin
from jobs.recipe import load_recipe
from jobs.run import open_corpus
from jobs.training import find_shards, train_model
from pipeline.engine.forgotten import Entry
from pipeline.ledger.explain import explain
from pipeline.publish.card import write_card
from pipeline.publish.report import write_report
from tests.jobs.corpora import SMALL_MODELS, faults, run
from tests.tokenizer_cache.audio.sounds import some_sounds, wav
from tokenizer_cache.audio.tokenizer import load_audio
from tokenizer_cache.manifest import open_manifest
from tokenizer_cache.shard_reading import AudioSegment, TextSegment, read_shard
from trainer.data.loader import Loader
from trainer.data.packing import unpack

NUM_SOUNDS = 24
RECIPE = f"""
name: sounding
sources:
  - {{kind: shapes, num_records: 24, size: 32}}
  - {{kind: sounds, path: sounds}}
ingest: {{rows_per_part: 40, validation_share: 0.2}}
{SMALL_MODELS}
audio_tokenizer:
  {{codebook_size: 32, width: 32, depth: 1, steps: 8, batch_size: 4, crop_codes: 20}}
train:
  model: {{layers: 1, width: 32, heads: 2}}
  tasks: {{image: {{text_to_image: 1, image_to_image: 1, infill: 1}}}}
  steps: 2
  tokens_per_step: 1024
evaluate: {{max_pairs: 6, max_drawn: 4, max_retrieved: 4, max_described: 4, num_resamples: 100}}
run: {{num_workers: 0}}
"""


def stored(form, encoding):
    """Writes sounds in another format: the bytes decide, whatever the file's name."""

    def write(samples):
        stream = io.BytesIO()
        soundfile.write(stream, samples, 16_000, format=form, subtype=encoding)
        return stream.getvalue()

    return write


STORED = {
    2: stored("FLAC", "PCM_16"),
    4: stored("WAV", "PCM_24"),
    6: stored("MP3", "MPEG_LAYER_III"),
    8: stored("OGG", "VORBIS"),
    10: stored("WAVEX", "PCM_16"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A recipe beside its sounds, among them a damaged one and one with a caption of another."""
    folder = tmp_path_factory.mktemp("sounding")
    (folder / "sounds").mkdir()
    for number, samples in enumerate(some_sounds(NUM_SOUNDS)):
        content = STORED.get(number, wav)(samples)
        (folder / "sounds" / f"{number:02}.wav").write_bytes(content)
        (folder / "sounds" / f"{number:02}.txt").write_text(f"sound of the kind {number // 2}")
    shutil.copy(folder / "sounds" / "00.wav", folder / "sounds" / "copy.wav")
    (folder / "sounds" / "copy.txt").write_text("the same sound again")
    (folder / "sounds" / "cut.wav").write_bytes(wav(some_sounds(1)[0])[:-9])
    (folder / "sounds" / "cut.txt").write_text("a sound that breaks off")
    (folder / "sounds" / "long.wav").write_bytes(wav(np.zeros(16_000 * 31, np.float32)))
    (folder / "sounds" / "long.txt").write_text("a long silence")
    (folder / "recipe.yaml").write_text(RECIPE)
    run(load_recipe(folder / "recipe.yaml"), folder / "corpus")
    return folder


@pytest.fixture(scope="module")
def opened(folder):
    return open_corpus(folder / "corpus")[1]


@pytest.fixture(scope="module")
def manifest(opened):
    return open_manifest(find_shards(opened))


def test_every_sound_is_in_the_shards_or_in_the_rejects_once(folder, opened):
    assert faults(folder / "corpus") == []
    rows = opened.query(
        "SELECT reason, count(*) FROM rejects WHERE reason LIKE 'sound-%' OR reason LIKE"
        " 'duplicate-sound' GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    assert rows == [("duplicate-sound", 1), ("sound-too-long", 1), ("sound-truncated", 1)]
    ((num,),) = opened.query("SELECT count(*) FROM samples WHERE stream = 'audio'").fetchall()
    assert num == NUM_SOUNDS
    repairs = opened.query("SELECT key, repairs FROM records WHERE len(repairs) > 0").fetchall()
    assert repairs == [("04.wav", ["sound-24-bit"])]


def test_a_sample_is_a_text_and_the_codes_that_its_sound_has(folder, opened, manifest):
    tokenizer = load_audio(opened.models["audio"])
    paths = [*manifest.paths("audio", "train"), *manifest.paths("audio", "validation")]
    samples = [sample for path in paths for sample in read_shard(path)]
    assert len(samples) == NUM_SOUNDS
    sounds = dict(opened.query("SELECT key, sound_id FROM records").fetchall())
    for sample in samples:
        text, sound = sample.segments
        assert isinstance(text, TextSegment)
        assert isinstance(sound, AudioSegment)
        (content,) = sample.metadata["provenance"]
        assert content["sound_id"] == sounds[content["origin"]]
        assert sound.codes.shape == (25, 1)
        assert sound.codes.max() < tokenizer.codebook_size


def test_the_vocabulary_ends_with_the_codes_of_sounds(manifest):
    kinds = [held.modality for held in manifest.vocabulary.ranges]
    assert kinds == ["special", "text", "image", "audio"]
    assert manifest.vocabulary.range_of("audio").size == 32


def test_rows_hold_the_sounds_between_their_brackets(folder, manifest):
    settings = load_recipe(folder / "recipe.yaml").train
    settings = settings.model_copy(update={"condition_dropout": 0.0})
    vocabulary = manifest.vocabulary
    audio = vocabulary.range_of("audio")
    begin, end = vocabulary.special("<aud>"), vocabulary.special("</aud>")
    held = {
        sample.segments[1].codes.tobytes()
        for path in manifest.paths("audio", "train")
        for sample in read_shard(path)
    }
    documents = [
        document for row in Loader(settings, manifest).next_rows(8) for document in unpack(row)
    ]
    sounding = [each for each in documents if begin in each]
    assert sounding
    for document in sounding:
        start = document.index(begin)
        assert document[0] == vocabulary.special("<txt>")
        assert document[start - 1] == vocabulary.special("</txt>")
        assert document[-2:] == [end, vocabulary.special("<eos>")]
        codes = np.array(document[start + 1 : -2]) - audio.start
        assert codes.astype(np.uint16).tobytes() in held


@pytest.fixture(scope="module")
def model(folder, manifest):
    """The folder of a run on the corpus."""
    recipe = load_recipe(folder / "recipe.yaml")
    console = Console(quiet=True)
    train_model(recipe, folder / "corpus", folder / "run", fresh=False, console=console)
    return folder / "run"


def test_a_model_is_trained_on_pictures_and_sounds(folder, model):
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    trained = set().union(*(json.loads(line)["train"] for line in lines))
    assert {"text", "image", "audio"} <= trained
    held_out = json.loads((folder / "run" / "evaluation.json").read_text())["held_out"]
    assert held_out["audio"]["audio"] > 0
    assert (folder / "run" / "tokenizers" / "audio" / "model.safetensors").exists()


def test_pictures_and_sounds_are_made_by_command(model, tmp_path, capsys):
    def sample(name, *arguments):
        assert call(["sample", str(model), *arguments, "--out", str(tmp_path / name)]) == 0
        return sorted(path.name for path in (tmp_path / name).iterdir())

    assert sample("sounds", "a bell", "rain", "--sound") == ["000-a-bell.wav", "001-rain.wav"]
    samples, rate = soundfile.read(tmp_path / "sounds" / "001-rain.wav")
    assert rate == load_audio(model / "tokenizers" / "audio").sampling_rate
    assert len(samples) > 0
    assert sample("plain", "red apple", "--negative", "blurred") == ["000-red-apple.png"]
    picture = tmp_path / "plain" / "000-red-apple.png"
    around = ("--picture", str(picture))
    assert sample("around", "a circle", *around) == ["000-a-circle.png"]
    assert sample("box", *around, "--box", "25,25,50,50") == ["000-empty.png"]
    with Image.open(tmp_path / "box" / "000-empty.png") as filled:
        assert filled.size == (32, 32)
    capsys.readouterr()


def test_a_sound_is_explained_and_stands_on_the_card(folder, opened):
    story = explain(opened, "sounds/03.wav")
    assert story["audio_tokens"] == [
        {"record_id": story["record_id"], "frames": 25, "codebooks": 1, "bits": 5}
    ]
    assert "sound" not in story["record"]
    assert "audio-" in story["outcome"]
    card = write_card(opened, embed=None).read_text()
    assert "text-to-audio" in card
    assert "KEY.audio.npy" in card
    assert "stream audio" in write_report(opened, None, embed=None).read_text()


def test_a_forgotten_sound_is_gone_from_every_file(folder, tmp_path):
    root = tmp_path / "corpus"
    shutil.copytree(folder / "corpus", root)
    story = explain(open_corpus(root)[1], "sounds/05.wav")
    sound_id = story["record"]["sound_id"]
    content = (folder / "sounds" / "05.wav").read_bytes()
    begin(root, [Entry(kind="record", value=story["record_id"])], is_filled=True)
    run(load_recipe(folder / "recipe.yaml"), root)
    assert faults(root) == []
    for path in root.rglob("*"):
        if path.is_file() and path.name != "forgotten.parquet":
            held = path.read_bytes()
            assert content[44:300] not in held
            assert sound_id.encode() not in held
