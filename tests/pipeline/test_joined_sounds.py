"""Files that hold several streams, and sounds in containers of another kind."""

import struct

import numpy as np
import pytest

from pipeline import ogg
from pipeline.sounds import SoundError, read_sound
from tests.pipeline.test_sounds import STEREO, made, wav
from tests.tokenizer_cache.audio.sounds import tone

MONO = STEREO[:, 0]


def refused(content):
    with pytest.raises(SoundError) as error:
        read_sound(content)
    return error.value.reason, str(error.value)


@pytest.mark.parametrize("encoding", ["VORBIS", "OPUS"])
def test_ogg_streams_one_behind_the_other_are_all_read(encoding):
    first, second = made("OGG", encoding, MONO), made("OGG", encoding, MONO[:24_000])
    samples = [read_sound(each).samples for each in (first, second)]
    assert np.array_equal(read_sound(first + second).samples, np.concatenate(samples))
    with pytest.raises(SoundError) as error:
        read_sound(first + second, max_s=2.2)
    assert error.value.reason == "sound-too-long"
    assert refused(first + second[:-40])[0] == "sound-truncated"


def test_ogg_streams_of_other_channels_are_refused():
    reason, said = refused(made("OGG", "VORBIS", MONO) + made("OGG", "VORBIS"))
    assert (reason, "changes its" in said) == ("sound-unsupported-format", True)


def test_mp3_files_one_behind_the_other_are_all_read():
    one = made("MP3", "MPEG_LAYER_III", MONO)
    alone, joined = read_sound(one).samples, read_sound(one + one).samples
    # What encoders put before and after a sound stays between the two.
    assert 2 * len(alone) <= len(joined) <= 2 * len(alone) + 4 * 1152
    assert abs(joined[-len(alone) :].astype(int)).mean() > 1000


def test_mp3_files_of_other_channels_one_behind_the_other_are_refused():
    content = made("MP3", "MPEG_LAYER_III", MONO) + made("MP3", "MPEG_LAYER_III")
    reason, said = refused(content)
    assert (reason, "changes its channels" in said) == ("sound-unsupported-format", True)


def test_a_wav_of_64_bit_sizes_is_read():
    samples = tone(440)
    content = made("RF64", "PCM_16", samples, 16_000)
    assert content[:4] == b"RF64"
    found, expected = (read_sound(each).samples for each in (content, wav(samples, 16_000)))
    assert found.shape == expected.shape
    assert abs(found.astype(int) - expected).max() <= 2  # of 16 bits
    assert refused(content[:-100])[0] == "sound-truncated"


def test_an_mp3_that_breaks_off_in_its_first_frames_is_not_said_to_be_missing():
    for length in range(40, 1200, 40):
        said = refused(made("MP3", "MPEG_LAYER_III", MONO)[:length])[1]
        assert "exist" not in said


def test_a_damaged_page_hides_no_ogg_stream_behind_it():
    first, second = made("OGG", "VORBIS", MONO), made("OGG", "VORBIS", MONO)
    at = first.rindex(b"OggS") + 27  # the first length in the last page
    damaged = first[:at] + bytes([first[at] ^ 0x40]) + first[at + 1 :]
    assert len(ogg.streams(damaged + second)) == 2


@pytest.mark.parametrize(
    ("begin", "name"),
    [(b"Speex   1.2", "Speex"), (b"\x80theora\3\2", "Theora"), (b"\x7fFLAC\1\0", "FLAC in Ogg")],
)
def test_what_an_ogg_file_holds_is_said(begin, name):
    page = b"OggS\0\6" + bytes(8) + struct.pack("<III", 1, 0, 0) + bytes([1, len(begin)]) + begin
    assert refused(page) == ("sound-unsupported-format", f"it holds {name}, which is not read here")
