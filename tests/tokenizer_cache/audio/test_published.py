"""Published audio tokenizers, shrunk and randomly initialised, beside what transformers does.

Legend: S samples, N frames, Q codebooks.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    EncodecConfig,
    EncodecFeatureExtractor,
    EncodecModel,
    MimiConfig,
    MimiModel,
    PreTrainedModel,
)

from pipeline.engine.fingerprint import hash_folder
from pipeline.errors import UserError
from pipeline.sounds import read_sound
from tests.tokenizer_cache.audio.sounds import inputs, some_sounds, wav
from tokenizer_cache.audio.adopt import adopt, fit
from tokenizer_cache.audio.description import describe_audio
from tokenizer_cache.audio.quality import METRICS
from tokenizer_cache.audio.settings import PublishedAudioSettings
from tokenizer_cache.audio.tokenizer import AudioTokenizer, load_audio

RATE, CODEBOOK_SIZE = 24_000, 16


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        yield


def encodec(**changes: Any) -> EncodecModel:
    """75 frames a second of 16 codes; 0.3 and 1.2 kbit/s are 1 and 4 codebooks."""
    shape = {"hidden_size": 16, "num_filters": 4, "codebook_size": CODEBOOK_SIZE}
    config = EncodecConfig(**shape, target_bandwidths=[0.3, 1.2], **changes)
    model = EncodecModel(config)
    # The codebooks start with zeros, and every code would be the first.
    frames = model.eval().encoder(torch.randn(1, config.audio_channels, 24_000))[0].T
    for number, layer in enumerate(model.quantizer.layers):
        layer.codebook.embed.copy_(frames[:CODEBOOK_SIZE] / 4**number)
    return model


def mimi() -> MimiModel:
    shape = {"hidden_size": 16, "num_filters": 4, "codebook_size": CODEBOOK_SIZE, "head_dim": 8}
    transformer = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    codes = {"codebook_dim": 8, "vector_quantization_hidden_dimension": 8, "num_quantizers": 5}
    config = MimiConfig(**shape, **transformer, **codes, intermediate_size=32, upsample_groups=16)
    model = MimiModel(config)
    for name, buffer in model.quantizer.named_buffers():
        if name.endswith("embed_sum"):
            buffer.normal_()
        elif name.endswith("cluster_usage"):
            buffer.fill_(1)
    return model.eval()


MODELS = {"encodec": encodec, "mimi": mimi}
NUM_CODEBOOKS = {"encodec": (1, 4), "mimi": (5, 3)}  # the model's own, and another one


def saved(kind: str, folder: Path) -> PreTrainedModel:
    model = MODELS[kind]()
    model.save_pretrained(folder)
    EncodecFeatureExtractor(sampling_rate=RATE).save_pretrained(folder)
    return model


def adopted(kind: str, weights: Path, folder: Path, **settings: Any) -> AudioTokenizer:
    folder.mkdir()
    adopt(PublishedAudioSettings(kind=kind, weights=str(weights), **settings), folder)
    return load_audio(folder)


def theirs(model: Any, samples: np.ndarray, folder: Path, num: int) -> torch.Tensor:
    """The codes (Q, N) of transformers' own preprocessing and `encode`."""
    extract = EncodecFeatureExtractor.from_pretrained(folder)
    given = extract(samples, sampling_rate=RATE, return_tensors="pt")
    if isinstance(model, MimiModel):
        return model.encode(**given, num_quantizers=num).audio_codes[0]
    return model.encode(**given, bandwidth={1: 0.3, 4: 1.2}[num]).audio_codes[0, 0]


@pytest.mark.parametrize("kind", ["encodec", "mimi"])
@pytest.mark.parametrize("is_own", [True, False])
def test_codes_and_sounds_are_those_of_transformers_bit_for_bit(
    kind: str, is_own: bool, tmp_path: Path
) -> None:
    model = saved(kind, tmp_path / "weights")
    num = NUM_CODEBOOKS[kind][0 if is_own else 1]
    settings = {} if is_own else {"num_codebooks": num}
    tokenizer = adopted(kind, tmp_path / "weights", tmp_path / "audio", **settings)
    used = set()
    for samples in some_sounds(3):
        sound = read_sound(wav(samples, RATE))
        prepared = tokenizer.prepare(sound)
        assert np.array_equal(prepared, sound.samples[:, 0].astype(np.float32) / 32_768)
        codes = tokenizer.encode(prepared)  # (N, Q)
        assert codes.dtype == np.uint16
        expected = theirs(model, prepared, tmp_path / "weights", num)
        assert np.array_equal(codes.T, expected.numpy())
        used |= set(codes.flat)
        if kind == "mimi":
            again = model.decode(expected[None]).audio_values
        else:
            again = model.decode(expected[None, None], [None]).audio_values
        assert torch.equal(torch.from_numpy(tokenizer.decode(codes)), again[0, 0])
    assert len(used) > 2
    assert tokenizer.sampling_rate == RATE
    described = describe_audio(tmp_path / "audio")
    assert described.num_tokens == num * CODEBOOK_SIZE
    assert described.codebooks == (num if num > 1 else None)


def test_more_codebooks_of_the_same_weights_are_another_tokenizer(tmp_path: Path) -> None:
    saved("encodec", tmp_path / "weights")
    for num in (1, 4):
        adopted("encodec", tmp_path / "weights", tmp_path / f"{num}", num_codebooks=num)
    one, four = (describe_audio(tmp_path / f"{num}").fingerprint for num in (1, 4))
    assert one != four


@pytest.mark.parametrize("kind", ["encodec", "mimi"])
def test_a_fit_pins_the_tokenizer_and_measures_it_on_the_corpus(kind: str, tmp_path: Path) -> None:
    saved(kind, tmp_path / "weights")
    settings = PublishedAudioSettings(kind=kind, weights=str(tmp_path / "weights"))
    hashes = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (progress,) = fit(settings, inputs(tmp_path), tmp_path / name)
        hashes.append(hash_folder(tmp_path / name))
    assert hashes[0] == hashes[1]
    metrics = json.loads((tmp_path / "one" / METRICS).read_text())
    assert metrics["split"] == "validation"
    assert metrics["num_sounds"] == 6
    assert metrics["mel_distance"] == progress.figures["mel_distance"] > 0


@pytest.mark.parametrize(
    ("changes", "settings", "said"),
    [
        ({"normalize": True}, {}, "a scale beside the codes"),
        ({"chunk_length_s": 1.0, "overlap": 0.01}, {}, "a scale beside the codes"),
        ({"audio_channels": 2}, {}, "it codes 2 channels"),
        ({}, {"num_codebooks": 3}, "it has 1, 4 codebooks, and num_codebooks is 3"),
    ],
)
def test_what_codes_alone_cannot_hold_is_refused(
    changes: dict[str, Any], settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    encodec(**changes).save_pretrained(tmp_path / "weights")
    with pytest.raises(UserError, match=said):
        adopted("encodec", tmp_path / "weights", tmp_path / "audio", **settings)


def test_another_models_weights_are_refused(tmp_path: Path) -> None:
    saved("mimi", tmp_path / "weights")
    with pytest.raises(UserError, match=r"its config.json is of mimi"):
        adopted("encodec", tmp_path / "weights", tmp_path / "audio")


def test_weights_that_lack_a_tensor_are_refused(tmp_path: Path) -> None:
    saved("encodec", tmp_path / "weights")
    path = tmp_path / "weights" / "model.safetensors"
    tensors = load_file(path)
    del tensors["quantizer.layers.0.codebook.embed"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"it has no quantizer\.layers\.0\.codebook\.embed"):
        adopted("encodec", tmp_path / "weights", tmp_path / "audio")


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    model = saved("encodec", tmp_path / "weights")
    (tmp_path / "weights" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "weights" / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"model\.safetensors"):
        adopted("encodec", tmp_path / "weights", tmp_path / "audio")


def test_codebooks_that_cannot_be_stored_are_refused_and_fewer_are_taken(tmp_path: Path) -> None:
    shape = {"hidden_size": 16, "num_filters": 4, "codebook_size": 65_536}
    EncodecModel(EncodecConfig(**shape, target_bandwidths=[1.2, 2.4])).save_pretrained(
        tmp_path / "weights"
    )
    with pytest.raises(UserError, match="2 codebooks of 65536 codes are more than 65536 together"):
        adopted("encodec", tmp_path / "weights", tmp_path / "two", num_codebooks=2)
    one = adopted("encodec", tmp_path / "weights", tmp_path / "one", num_codebooks=1)
    assert one.codebook_size == 65_536
