"""The audio tokenizer that is trained on the corpus. Legend: S samples, N frames, Q codebooks."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from pipeline.engine.fingerprint import hash_folder
from pipeline.engine.stage import FitInputs
from pipeline.errors import UserError
from pipeline.sounds import Sound, read_sound
from tests.tokenizer_cache.audio.sounds import (
    TINY_AUDIO,
    inputs,
    some_sounds,
    tone,
    wav,
    write_records,
)
from tokenizer_cache.audio.description import describe_audio
from tokenizer_cache.audio.quality import METRICS, mel_distance
from tokenizer_cache.audio.tokenizer import AudioTokenizer, load_audio, mono
from tokenizer_cache.audio.train import fit, load_sounds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    (root / "audio").mkdir()
    list(fit(TINY_AUDIO, inputs(root), root / "audio"))
    return root / "audio"


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> AudioTokenizer:
    return load_audio(folder)


def test_held_out_sounds_come_back_much_nearer_than_silence(folder: Path) -> None:
    metrics = json.loads((folder / METRICS).read_text())
    silence = np.mean([mel_distance(each, 0 * each, 16_000) for each in some_sounds(18)[12:]])
    assert metrics["split"] == "validation"
    assert metrics["mel_distance"] < 0.6 * silence
    assert 0 < metrics["codebook_usage"] <= 1
    assert 1 < metrics["perplexity"] <= TINY_AUDIO.codebook_size


def test_the_same_sounds_train_the_same_tokenizer_to_the_byte(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    list(fit(TINY_AUDIO, inputs(tmp_path), tmp_path / "audio"))
    assert hash_folder(tmp_path / "audio") == hash_folder(folder)


def test_the_vocabulary_gets_a_range_of_one_codebook(folder: Path) -> None:
    described = describe_audio(folder)
    assert (described.modality, described.num_tokens) == ("audio", TINY_AUDIO.codebook_size)
    assert described.codebooks is None


@given(st.integers(1, 5000))
@settings(max_examples=20, deadline=None)
def test_every_320_samples_give_one_code_and_the_last_is_filled_up(
    tokenizer: AudioTokenizer, length: int
) -> None:
    sound = tone(440, seconds=1)[:length]
    codes = tokenizer.encode(sound)
    assert codes.shape == (-(-length // 320), 1)
    assert codes.dtype == np.uint16
    assert codes.max() < TINY_AUDIO.codebook_size


def test_codes_decode_to_the_same_sound_every_time(tokenizer: AudioTokenizer) -> None:
    codes = tokenizer.encode(tone(440))
    sound = tokenizer.decode(codes)
    assert sound.shape == (len(codes) * 320,)
    assert sound.dtype == np.float32
    assert np.abs(sound).max() <= 1
    assert np.array_equal(tokenizer.decode(codes), sound)


def test_a_sound_is_brought_to_one_channel_and_the_tokenizers_rate(
    tokenizer: AudioTokenizer,
) -> None:
    left, right = tone(440, rate=48_000), tone(880, rate=48_000)
    sound = read_sound(wav(np.stack([left, right], axis=1), 48_000))
    expected = resample_poly(sound.samples.astype(np.float32).mean(axis=1) / 32_768, 1, 3)
    assert np.allclose(tokenizer.prepare(sound), expected, atol=1e-6)
    loudest = Sound(samples=np.full((9, 1), -32_768, np.int16), sampling_rate=16_000)
    assert mono(loudest, 16_000).min() == -1


def test_of_a_large_corpus_some_seconds_are_read_each_sound_once(tmp_path: Path) -> None:
    same = {f"r{n}": wav(tone(440)) for n in range(3)}
    others = {f"s{n}": wav(each) for n, each in enumerate(some_sounds(9))}
    read = FitInputs(
        tables={"records": [write_records(tmp_path, same | others, "train")]}, models={}
    )
    assert len(load_sounds(read, "train", 16_000, 100)) == 10
    assert len(load_sounds(read, "train", 16_000, 2)) == 4  # half a second each
    assert load_sounds(read, "validation", 16_000, 100) == []


def test_a_corpus_without_sounds_is_told_so(tmp_path: Path) -> None:
    empty = FitInputs(tables={"records": [write_records(tmp_path, {}, "train")]}, models={})
    with pytest.raises(UserError, match="the corpus has no sounds"):
        list(fit(TINY_AUDIO, empty, tmp_path))
