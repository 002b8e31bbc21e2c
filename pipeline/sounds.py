"""From the bytes of a sound's file to 16-bit samples, with limits: source data is hostile.

The bytes decide what a sound is, never its file's name. What cannot be used is a `SoundError` with
its reject code. libsndfile decodes, block by block, so that no more is unpacked than the limits
allow. 16-bit samples are integers: no sound has a NaN in it.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from soundfile import LibsndfileError, SoundFile

from pipeline import ogg
from pipeline.errors import RejectError
from pipeline.mp3 import with_length

MIN_SAMPLING_RATE, MAX_SAMPLING_RATE = 4_000, 192_000
"""Hz. Ours: from telephones to studios; another one makes a resampling filter of any length."""
MAX_CHANNELS = 2

_REPAIRS = {
    "PCM_24": "sound-24-bit",
    "PCM_32": "sound-32-bit",
    "FLOAT": "sound-float",
    "DOUBLE": "sound-float",
}
"""Of libsndfile's encodings those that are rounded to 16 bits."""
_FRAMES_PER_BLOCK = 1 << 16
_UNKNOWN = 1 << 62
"""From this number of frames on libsndfile says that it does not know."""
_NO_LENGTH = 0x7FFF_F000
"""From this number of bytes on a header says that its writer, mostly a pipe, did not know."""
_EMPTY, _NOT_CLOSED = 36, b"\x08\0\0\0"
"""What a WAV file says of its size before there is sound in it, and by what size libsndfile knows a
file whose recorder was stopped before it wrote one."""
_MP3_SLACK = 2 * 1152
"""Samples that an MP3 may lack: some encoders count the frame that says how many there are."""
_CUT = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be \d+\)$", re.MULTILINE)
"""How libsndfile notes that a WAV, AIFF or AU file has fewer bytes of sound than it says."""
_TOO_MANY_CHANNELS = 33
_NO_FRAME = 7
"""Of an MP3 file; libsndfile's words are that the file does not exist."""
_UNSUPPORTED = {4, 18, 64}
"""Numbers of libsndfile's errors; the last is that of a WAV file in an encoding that it lacks."""


class SoundError(RejectError):
    """A sound that will not be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """16-bit PCM.

    Attributes:
        samples: (T, C) int16, C channels.
        sampling_rate: in Hz.
        repairs: what was put right or rounded.
    """

    samples: np.ndarray
    sampling_rate: int
    repairs: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        """Its length in seconds."""
        return len(self.samples) / self.sampling_rate


def read_sound(content: bytes, *, min_s: float = 0, max_s: float = math.inf) -> Sound:
    """The samples of a WAV, FLAC, MP3, Ogg (Vorbis or Opus), AIFF or AU file.

    16-bit samples are as they are in the file, others are rounded to 16 bits.

    Args:
        content: the file.
        min_s: how short a sound may be, in seconds.
        max_s: how long; nothing behind that is decoded.

    Raises:
        SoundError: when the bytes are no such file, are damaged, or beyond a limit.
    """
    if not content:
        raise SoundError("sound-empty", "there are no bytes")
    stream = _without_id3(content)
    kind = _kind_of(stream)
    if kind == "Ogg" and (codec := ogg.unread_codec(stream)):
        raise SoundError("sound-unsupported-format", f"it holds {codec}, which is not read here")
    if kind == "Ogg" and ogg.lacks_its_end(stream):
        raise SoundError("sound-truncated", "its last page is not the end of the stream")
    if stream[:4] == b"RF64" and (
        len(stream) < int.from_bytes(stream[20:28], "little") + 8 < _UNKNOWN
    ):
        raise SoundError("sound-truncated", "its header promises more bytes than there are")
    sounds: list[Sound] = []
    for part in ogg.streams(stream) if kind == "Ogg" else [stream]:
        sounds.append(_decode(part, kind, max_s - sum(each.duration_s for each in sounds)))
    if len({(each.sampling_rate, each.samples.shape[1]) for each in sounds}) > 1:
        message = "it changes its sampling rate or channels on the way"
        raise SoundError("sound-unsupported-format", message)
    samples, rate = np.concatenate([each.samples for each in sounds]), sounds[0].sampling_rate
    if len(samples) < min_s * rate:
        message = f"{len(samples) / rate:.2f} s is less than {min_s:g} s"
        raise SoundError("sound-too-short", message)
    repairs = {repair for each in sounds for repair in each.repairs}
    return Sound(samples=samples, sampling_rate=rate, repairs=tuple(sorted(repairs)))


def _decode(stream: bytes, kind: str, max_s: float) -> Sound:
    """The samples of one stream of a known kind."""
    if kind == "MP3":
        try:
            stream = with_length(stream)
        except ValueError as error:
            raise SoundError("sound-unsupported-format", str(error)) from error
    with _open(stream) as file:
        _check_header(file, max_s)
        repairs = {_REPAIRS[file.subtype]} if file.subtype in _REPAIRS else set()
        for declared in _CUT.findall(file.extra_info):
            if int(declared) < _NO_LENGTH:
                message = f"its header promises {declared} bytes of sound, and there are fewer"
                raise SoundError("sound-truncated", message)
            repairs.add("sound-without-length")
        if "wasn't closed" in file.extra_info:
            repairs.add("sound-without-length")
        blocks = list(_blocks(file, max_s, repairs))
        promised, rate = file.frames, file.samplerate
        slack = _MP3_SLACK if "MPEG" in file.subtype else 0  # in a WAV file, too
    samples = np.concatenate(blocks)  # (T, C)
    if len(samples) + slack < promised < _UNKNOWN:
        raise SoundError("sound-truncated", f"{len(samples)} of {promised} samples are there")
    return Sound(samples=samples, sampling_rate=rate, repairs=tuple(sorted(repairs)))


class _Stream(SoundFile):
    """Read from beginning to end: after each block soundfile would seek to where it is.

    In a FLAC file that does not say its length, or is cut, that fails.
    """

    def seekable(self) -> bool:
        return False


class _Bytes(io.BytesIO):
    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Where a damaged file sends its reader before the beginning, it stays where it is.

        soundfile would print an exception, and not raise it.
        """
        with suppress(ValueError):
            super().seek(offset, whence)
        return self.tell()


def _open(content: bytes) -> _Stream:
    if content[:4] == b"RIFF" and int.from_bytes(content[4:8], "little") <= _EMPTY < len(content):
        content = content[:4] + _NOT_CLOSED + content[8:]
    try:
        return _Stream(_Bytes(content))
    except LibsndfileError as error:
        if error.code == _TOO_MANY_CHANNELS:
            message = f"its channels are more than {MAX_CHANNELS}"
            raise SoundError("sound-too-many-channels", message) from error
        reason = "sound-unsupported-format" if error.code in _UNSUPPORTED else "sound-damaged"
        message = "its header is damaged, breaks off or names an encoding that is not read"
        if error.code != _NO_FRAME:
            message += f" ({error.error_string})"
        raise SoundError(reason, message) from error


def _check_header(file: SoundFile, max_s: float) -> None:
    """Raise a SoundError for what a header says before anything is decoded."""
    channels, rate = file.channels, file.samplerate
    if channels > MAX_CHANNELS:
        message = f"{channels} channels are more than {MAX_CHANNELS}"
        raise SoundError("sound-too-many-channels", message)
    if not MIN_SAMPLING_RATE <= rate <= MAX_SAMPLING_RATE:
        message = f"{rate} Hz is not between {MIN_SAMPLING_RATE} and {MAX_SAMPLING_RATE} Hz"
        raise SoundError("sound-sampling-rate", message)
    if max_s * rate < file.frames < _UNKNOWN:
        message = f"{file.frames / rate:.2f} s is more than {max_s:g} s"
        raise SoundError("sound-too-long", message)


def _blocks(file: SoundFile, max_s: float, repairs: set[str]) -> Iterator[np.ndarray]:
    """The samples as (T, C) int16, block by block; adds to `repairs` what is cut off."""
    is_exact = file.subtype == "PCM_16"
    num_read = 0
    while True:
        # What lies behind the last sample, a tag say, is no sound.
        num_wanted = min(_FRAMES_PER_BLOCK, file.frames - num_read)
        try:
            block = file.read(num_wanted, dtype="int16" if is_exact else "float64", always_2d=True)
        except LibsndfileError as error:
            message = f"it breaks off or is damaged after {num_read} samples: {error.error_string}"
            raise SoundError("sound-truncated", message) from error
        num_read += len(block)
        if num_read > max_s * file.samplerate:
            raise SoundError("sound-too-long", f"it goes on after {max_s:g} s")
        yield block if is_exact else _to_16_bits(block, repairs)
        if not len(block):
            return


def _to_16_bits(samples: np.ndarray, repairs: set[str]) -> np.ndarray:
    """Samples (T, C) float64, from -1 to 1, as int16."""
    if not np.isfinite(samples).all():
        raise SoundError("sound-not-finite", "a sample is infinite or not a number")
    if (abs(samples) > 1).any():
        repairs.add("sound-clipped")
    rounded: np.ndarray = np.rint(samples * 32_768).clip(-32_768, 32_767)
    return rounded.astype(np.int16)


def _kind_of(content: bytes) -> str:
    """The format that a file begins as; raises a SoundError for another one."""
    magic, form = content[:4], content[8:12]
    if (magic in (b"RIFF", b"RIFX", b"RF64") and form == b"WAVE") or (
        magic == b"FORM" and form in (b"AIFF", b"AIFC")
    ):
        return "chunks"
    for begin, kind in ((b"fLaC", "FLAC"), (b"OggS", "Ogg"), (b".snd", "AU")):
        if magic == begin:
            return kind
    # Eleven bits of one, and a layer: AAC has the same bits, and no layer.
    if len(magic) == 4 and magic[0] == 0xFF and magic[1] >= 0xE0 and magic[1] & 6:
        return "MP3"
    message = "it is none of WAV, FLAC, MP3, Ogg (Vorbis or Opus), AIFF and AU"
    raise SoundError("sound-unsupported-format", message)


def _without_id3(content: bytes) -> bytes:
    """A file without the tags and zeros before it, behind which libsndfile misses some formats."""
    start = 0
    while content[start : start + 3] == b"ID3" and len(content) >= start + 10:
        flags, *sizes = content[start + 5 : start + 10]
        size = sum(each << shift for each, shift in zip(sizes, (21, 14, 7, 0), strict=True))
        start += 10 + size + (10 if flags & 0x10 else 0)  # a footer
    return content[start:].lstrip(b"\0")
