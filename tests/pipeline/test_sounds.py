"""Sounds as people have them, and as hostile ones make them."""

import io
import re
import struct
from contextlib import suppress

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sounds import SoundError, read_sound
from pipeline.words import REASONS
from tests.tokenizer_cache.audio.sounds import chirp, hiss, tone, wav

GOOD = wav(tone(440, seconds=0.1))
AT_RIFF_SIZE, AT_FORMAT, AT_CHANNELS, AT_RATE, AT_BITS, AT_SIZE = 4, 20, 22, 24, 34, 40
STEREO = np.stack([chirp(200, 900, 2, 48_000), tone(660, 2, 48_000)], axis=1)


def patched(at: int, value: bytes, content: bytes = GOOD) -> bytes:
    return content[:at] + value + content[at + len(value) :]


def short(value: int) -> bytes:
    return struct.pack("<H", value)


def long(value: int) -> bytes:
    return struct.pack("<I", value)


def made(form: str, encoding: str, samples: np.ndarray = STEREO, rate: int = 48_000) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=form, subtype=encoding)
    return stream.getvalue()


def flac_of(num_samples: int) -> bytes:
    """A FLAC file of two seconds that says that it has so many samples; 0 says nothing."""
    content = made("FLAC", "PCM_16")
    at = 4 + 4 + 13  # the number's lower 36 bits begin in the middle of this byte of STREAMINFO
    number = (content[at] & 0xF0) << 32 | num_samples
    return patched(at, number.to_bytes(5, "big"), content)


def without_xing(mp3: bytes) -> bytes:
    """An MP3 stream without its first frame, which says how long it is."""
    return mp3[re.search(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", mp3[4:]).start() + 4 :]


def id3(size: int) -> bytes:
    """A tag of version 2.3 with a picture that looks like MP3 frames."""
    frame = b"APIC" + struct.pack(">IH", size, 0) + b"\xff\xfb" * (size // 2)
    sizes = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + sizes + frame


def test_the_samples_are_those_that_were_written():
    stereo = np.stack([tone(440), tone(880)], axis=1)
    sound = read_sound(wav(stereo, 44_100))
    assert sound.sampling_rate == 44_100
    assert np.array_equal(sound.samples, (stereo * 32_767).astype(np.int16))
    assert sound.duration_s == len(stereo) / 44_100
    assert sound.repairs == ()


@pytest.mark.parametrize(
    ("form", "encoding", "repairs"),
    [
        ("WAV", "PCM_16", ()),
        ("WAVEX", "PCM_16", ()),
        ("WAV", "PCM_24", ("sound-24-bit",)),
        ("WAVEX", "PCM_24", ("sound-24-bit",)),
        ("WAV", "PCM_32", ("sound-32-bit",)),
        ("WAV", "FLOAT", ("sound-float",)),
        ("WAVEX", "FLOAT", ("sound-float",)),
        ("WAV", "DOUBLE", ("sound-float",)),
        ("FLAC", "PCM_16", ()),
        ("FLAC", "PCM_24", ("sound-24-bit",)),
        ("AIFF", "PCM_16", ()),
        ("AIFF", "PCM_24", ("sound-24-bit",)),
        ("AIFF", "FLOAT", ("sound-float",)),
        ("AU", "PCM_16", ()),
        ("AU", "FLOAT", ("sound-float",)),
    ],
)
@pytest.mark.parametrize("samples", [STEREO, STEREO[:, 0]], ids=["stereo", "mono"])
def test_lossless_formats_give_the_nearest_16_bits(form, encoding, repairs, samples):
    sound = read_sound(made(form, encoding, samples))
    assert sound.sampling_rate == 48_000
    assert sound.samples.shape == (len(samples), samples.ndim)
    apart = abs(sound.samples - samples.reshape(len(samples), -1) * 32_768.0)
    assert apart.max() <= (1 if encoding == "PCM_16" else 0.51)  # 16 bits: as the writer rounded
    assert sound.repairs == repairs


@pytest.mark.parametrize(
    ("form", "encoding", "noise"),
    [
        ("WAV", "PCM_U8", 0.01),
        ("AIFF", "PCM_S8", 0.01),
        ("WAV", "ULAW", 0.02),
        ("AU", "ALAW", 0.02),
        ("WAV", "IMA_ADPCM", 0.05),
        ("OGG", "VORBIS", 0.05),
        ("OGG", "OPUS", 0.1),
        ("MP3", "MPEG_LAYER_III", 0.1),
    ],
)
def test_lossy_formats_give_about_the_samples_and_their_number(form, encoding, noise):
    sound = read_sound(made(form, encoding))
    assert sound.sampling_rate == 48_000
    assert 0 <= len(sound.samples) - len(STEREO) < 2048  # ADPCM fills its last block
    assert abs(sound.samples[: len(STEREO)] / 32_768 - STEREO)[1000:-1000].max() < noise
    assert sound.repairs == ()


@given(st.lists(st.integers(-(2**23), 2**23 - 1), min_size=1, max_size=50))
@settings(deadline=None)
def test_24_bits_are_rounded_and_never_wrap_around(values):
    content = made("WAV", "PCM_24", np.array(values, np.int32) << 8)
    expected = np.rint(np.array(values) / 256).clip(-32_768, 32_767)
    assert np.array_equal(read_sound(content).samples[:, 0], expected)


def test_a_wav_file_with_the_highest_byte_first_gives_the_same_samples():
    stream = io.BytesIO()
    soundfile.write(stream, STEREO, 48_000, format="WAV", subtype="PCM_16", endian="BIG")
    assert stream.getvalue().startswith(b"RIFX")
    expected = read_sound(made("WAV", "PCM_16")).samples
    assert np.array_equal(read_sound(stream.getvalue()).samples, expected)


def test_floats_beyond_one_are_clipped_and_said():
    values = np.array([0, 0.5, 1, -1, 1.5, -7])
    sound = read_sound(made("WAV", "FLOAT", values))
    assert sound.samples[:, 0].tolist() == [0, 16_384, 32_767, -32_768, 32_767, -32_768]
    assert sound.repairs == ("sound-clipped", "sound-float")
    assert read_sound(made("WAV", "FLOAT", values[:4])).repairs == ("sound-float",)


def test_a_tag_before_a_sound_is_skipped():
    for form, encoding in (("MP3", "MPEG_LAYER_III"), ("FLAC", "PCM_16"), ("WAV", "PCM_16")):
        content = made(form, encoding)
        plain = read_sound(content).samples
        for tag in (id3(100), id3(300_000), id3(100) * 2):
            assert np.array_equal(read_sound(tag + content).samples, plain)
        assert np.array_equal(read_sound(id3(100) + bytes(999) + content).samples, plain)
        assert len(read_sound(content + b"TAG".ljust(128)).samples) == len(plain)


def test_an_mp3_that_does_not_say_its_length_is_read_to_its_end():
    loud = np.concatenate([np.zeros(48_000), hiss(0, 2, 48_000)])  # a guess from the silence fails
    content = made("MP3", "MPEG_LAYER_III", loud)
    for stream in (without_xing(content), without_xing(content) + b"TAG".ljust(128)):
        assert 0 <= len(read_sound(stream).samples) - len(loud) < 3 * 1152
    for rate in (8_000, 22_050, 44_100):  # MPEG 2.5, 2 and 1
        content = made("MP3", "MPEG_LAYER_III", hiss(0, 1, rate), rate)
        assert 0 <= len(read_sound(without_xing(content)).samples) - rate < 3 * 1152
    content = made("MP3", "MPEG_LAYER_III", loud)
    damaged = patched(len(content) // 2, b"\0" * 200, without_xing(content))
    assert len(read_sound(damaged).samples) > len(loud) - 3 * 1152


def test_a_sound_whose_header_does_not_know_the_length_is_read_to_its_end():
    assert np.array_equal(read_sound(flac_of(0)).samples, read_sound(flac_of(96_000)).samples)
    whole = read_sound(GOOD).samples
    for size in (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000):  # ffmpeg's and others' into a pipe
        sound = read_sound(patched(AT_SIZE, long(size), patched(AT_RIFF_SIZE, long(size))))
        assert np.array_equal(sound.samples, whole)
        assert sound.repairs == ("sound-without-length",)
    for size in (0, 36):  # a recorder that was stopped
        sound = read_sound(patched(AT_SIZE, long(0), patched(AT_RIFF_SIZE, long(size))))
        assert np.array_equal(sound.samples, whole)
        assert sound.repairs == ("sound-without-length",)
    au = made("AU", "PCM_16")
    assert np.array_equal(
        read_sound(patched(8, long(0xFFFFFFFF), au)).samples, read_sound(au).samples
    )


BAD = {
    "sound of no bytes": (b"", "sound-empty"),
    "text named .wav": (b"no sound at all, but words", "sound-unsupported-format"),
    "AAC named .mp3": (b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(300), "sound-unsupported-format"),
    "M4A named .wav": (b"\0\0\0\x20ftypM4A " + bytes(300), "sound-unsupported-format"),
    "tag of an MP3 without a sound": (id3(100), "sound-unsupported-format"),
    "WAV cut in its first bytes": (b"RIFF", "sound-unsupported-format"),
    "WAV cut in its header": (GOOD[:30], "sound-damaged"),
    "WAV without data": (GOOD[:36], "sound-damaged"),
    "WAV of no channels": (patched(AT_CHANNELS, short(0)), "sound-damaged"),
    "WAV without a format": (patched(12, b"JUNK"), "sound-damaged"),
    "WAV of 16-bit floats": (patched(AT_FORMAT, short(3)), "sound-damaged"),
    "WAV of an unknown encoding": (patched(AT_FORMAT, short(999)), "sound-unsupported-format"),
    "WAV of floats with a NaN": (
        made("WAV", "FLOAT", np.array([0, np.nan, 1])),
        "sound-not-finite",
    ),
    "WAV of floats with an infinity": (
        made("WAV", "DOUBLE", np.array([0, -np.inf, 1])),
        "sound-not-finite",
    ),
    "WAV of six channels": (patched(AT_CHANNELS, short(6)), "sound-too-many-channels"),
    "WAV of 65,535 channels": (patched(AT_CHANNELS, short(0xFFFF)), "sound-too-many-channels"),
    "FLAC of six channels": (
        made("FLAC", "PCM_16", np.zeros((99, 6))),
        "sound-too-many-channels",
    ),
    "WAV of 0 Hz": (patched(AT_RATE, long(0)), "sound-damaged"),
    "WAV of 4 GHz": (patched(AT_RATE, long(0xFFFFFFFF)), "sound-damaged"),
    "WAV of 1 MHz": (patched(AT_RATE, long(1_000_000)), "sound-sampling-rate"),
    "WAV of 1 kHz": (patched(AT_RATE, long(1_000)), "sound-sampling-rate"),
    "WAV that promises 1 GB": (patched(AT_SIZE, long(1 << 30)), "sound-truncated"),
    "WAV that breaks off": (GOOD[:-100], "sound-truncated"),
    "WAV that breaks off in a sample": (GOOD[:-1], "sound-truncated"),
    "AIFF that breaks off": (made("AIFF", "PCM_16")[:-100], "sound-truncated"),
    "AU that breaks off": (made("AU", "PCM_16")[:-100], "sound-truncated"),
    "FLAC that breaks off": (made("FLAC", "PCM_16")[:-100], "sound-truncated"),
    "FLAC with a damaged frame": (
        patched(20_000, b"\x55" * 50, made("FLAC", "PCM_16")),
        "sound-truncated",
    ),
    "FLAC that promises a minute more": (flac_of(3_000_000), "sound-truncated"),
    "FLAC cut in its header": (made("FLAC", "PCM_16")[:50], "sound-damaged"),
    "MP3 that breaks off in the middle": (
        made("MP3", "MPEG_LAYER_III")[:5000],
        "sound-truncated",
    ),
    "Vorbis that breaks off": (made("OGG", "VORBIS")[:-1], "sound-truncated"),
    "Opus that breaks off": (made("OGG", "OPUS")[:9000], "sound-truncated"),
}


@pytest.mark.parametrize(("content", "reason"), BAD.values(), ids=BAD)
def test_what_cannot_be_used_has_its_reason(content: bytes, reason: str):
    with pytest.raises(SoundError) as caught:
        read_sound(content)
    assert caught.value.reason == reason
    assert reason in REASONS


def test_a_sound_may_be_so_long_and_no_longer():
    read_sound(GOOD, min_s=0.1, max_s=0.1)
    for limits, reason in (((0.2, 9), "sound-too-short"), ((0, 0.05), "sound-too-long")):
        with pytest.raises(SoundError) as caught:
            read_sound(GOOD, min_s=limits[0], max_s=limits[1])
        assert caught.value.reason == reason
        assert reason in REASONS
    silent = wav(np.zeros(0, np.float32))
    with pytest.raises(SoundError, match="less than"):
        read_sound(silent, min_s=0.1, max_s=1)
    assert len(read_sound(silent).samples) == 0


@pytest.mark.parametrize("promised", [0, 96_000, 2**36 - 1])
def test_no_more_is_decoded_than_the_limit_allows(promised, monkeypatch):
    num_decoded = 0
    read = soundfile.SoundFile.read

    def count(*arguments, **options):
        nonlocal num_decoded
        block = read(*arguments, **options)
        num_decoded += len(block)
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", count)
    with pytest.raises(SoundError) as caught:
        read_sound(flac_of(promised), max_s=0.5)
    assert caught.value.reason == "sound-too-long"
    assert num_decoded <= (0 if promised else 1 << 16)


@given(
    st.sampled_from(
        [
            GOOD,
            made("WAVEX", "PCM_24", STEREO[:3000]),
            made("AIFF", "FLOAT", STEREO[:3000]),
            made("AU", "ULAW", STEREO[:3000]),
            made("FLAC", "PCM_16", STEREO[:3000]),
            made("OGG", "VORBIS", STEREO[:3000]),
            made("MP3", "MPEG_LAYER_III", STEREO[:3000]),
        ]
    ),
    st.integers(0, 200),
    st.binary(min_size=1, max_size=8),
    st.integers(0, 300),
)
@settings(max_examples=300, deadline=None)
def test_whatever_a_file_says_there_is_a_sound_or_a_reason(content, at, noise, cut):
    with suppress(SoundError):
        sound = read_sound(patched(at, noise, content)[: len(content) - cut], max_s=9)
        assert sound.samples.dtype == np.int16
        assert sound.samples.shape[1] in (1, 2)
        assert sound.duration_s <= 9
