"""WAV files as people have them, and as hostile ones make them."""

import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sounds import SoundError, check_duration, read_wav
from pipeline.words import REASONS
from tests.tokenizer_cache.audio.sounds import tone, wav

GOOD = wav(tone(440, seconds=0.1))
AT_FORMAT, AT_CHANNELS, AT_RATE, AT_BITS, AT_SIZE = 20, 22, 24, 34, 40


def patched(at: int, value: bytes) -> bytes:
    return GOOD[:at] + value + GOOD[at + len(value) :]


def short(value: int) -> bytes:
    return struct.pack("<H", value)


def long(value: int) -> bytes:
    return struct.pack("<I", value)


def test_the_samples_are_those_that_were_written() -> None:
    stereo = np.stack([tone(440), tone(880)], axis=1)
    sound = read_wav(wav(stereo, 44_100))
    assert sound.sampling_rate == 44_100
    assert np.array_equal(sound.samples, (stereo * 32_767).astype(np.int16))
    assert sound.duration_s == len(stereo) / 44_100


BAD = {
    "sound of no bytes": (b"", "sound-empty"),
    "MP3 named .wav": (b"ID3\x04 no WAV file", "sound-not-wav"),
    "WAV cut in its first bytes": (b"RIFF", "sound-not-wav"),
    "WAV cut in its header": (GOOD[:30], "sound-damaged"),
    "WAV without data": (GOOD[:36], "sound-damaged"),
    "WAV of no channels": (patched(AT_CHANNELS, short(0)), "sound-damaged"),
    "WAV without a format": (patched(12, b"JUNK"), "sound-damaged"),
    "WAV of floats, which may be NaN": (patched(AT_FORMAT, short(3)), "sound-unsupported-format"),
    "WAV of 24 bits": (patched(AT_BITS, short(24)), "sound-unsupported-format"),
    "WAV of 8 bits": (patched(AT_BITS, short(8)), "sound-unsupported-format"),
    "WAV of six channels": (patched(AT_CHANNELS, short(6)), "sound-too-many-channels"),
    "WAV of 65,535 channels": (patched(AT_CHANNELS, short(0xFFFF)), "sound-too-many-channels"),
    "WAV of 0 Hz": (patched(AT_RATE, long(0)), "sound-sampling-rate"),
    "WAV of 4 GHz": (patched(AT_RATE, long(0xFFFFFFFF)), "sound-sampling-rate"),
    "WAV that promises 4 GB": (patched(AT_SIZE, long(0xFFFFFFFE)), "sound-truncated"),
    "WAV that breaks off": (GOOD[:-100], "sound-truncated"),
    "WAV that breaks off in a sample": (GOOD[:-1], "sound-truncated"),
}


@pytest.mark.parametrize(("content", "reason"), BAD.values(), ids=BAD)
def test_what_cannot_be_used_has_its_reason(content: bytes, reason: str) -> None:
    with pytest.raises(SoundError) as caught:
        read_wav(content)
    assert caught.value.reason == reason
    assert reason in REASONS


def test_a_sound_may_be_so_long_and_no_longer() -> None:
    sound = read_wav(GOOD)
    check_duration(sound, min_s=0.1, max_s=0.1)
    for limits, reason in (((0.2, 9), "sound-too-short"), ((0, 0.05), "sound-too-long")):
        with pytest.raises(SoundError) as caught:
            check_duration(sound, min_s=limits[0], max_s=limits[1])
        assert caught.value.reason == reason
        assert reason in REASONS
    silent = read_wav(wav(np.zeros(0, np.float32)))
    with pytest.raises(SoundError, match="less than"):
        check_duration(silent, min_s=0.1, max_s=1)


@given(st.integers(0, 60), st.binary(min_size=1, max_size=8))
@settings(max_examples=300)
def test_whatever_a_header_says_there_is_a_sound_or_a_reason(at: int, noise: bytes) -> None:
    with suppress(SoundError):
        sound = read_wav(patched(at, noise))
        assert sound.samples.dtype == np.int16
        assert sound.samples.nbytes <= len(GOOD)
