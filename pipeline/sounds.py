"""From the bytes of a WAV file to 16-bit samples, with limits: source data is hostile.

The bytes decide what a sound is, never its file's name. What cannot be used is a `SoundError` with
its reject code. 16-bit samples are integers: no sound has a NaN in it.
"""

from __future__ import annotations

import io
import struct
import wave
from dataclasses import dataclass

import numpy as np

from pipeline.errors import RejectError

MIN_SAMPLING_RATE, MAX_SAMPLING_RATE = 4_000, 192_000
"""Hz. Ours: from telephones to studios; another one makes a resampling filter of any length."""
MAX_CHANNELS = 2

_BYTES_PER_SAMPLE = 2


class SoundError(RejectError):
    """A sound that will not be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """16-bit PCM.

    Attributes:
        samples: (T, C) int16, C channels.
        sampling_rate: in Hz.
    """

    samples: np.ndarray
    sampling_rate: int

    @property
    def duration_s(self) -> float:
        """Its length in seconds."""
        return len(self.samples) / self.sampling_rate


def read_wav(content: bytes) -> Sound:
    """The samples of a WAV file with 16-bit PCM.

    Raises:
        SoundError: when the bytes are no such file, or are damaged.
    """
    if not content:
        raise SoundError("sound-empty", "there are no bytes")
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise SoundError("sound-not-wav", "it does not begin as a WAV file does")
    try:
        with wave.open(io.BytesIO(content)) as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            num_frames = file.getnframes()
            data = file.readframes(num_frames)
    except wave.Error as error:
        unknown = str(error).startswith("unknown format")
        reason = "sound-unsupported-format" if unknown else "sound-damaged"
        raise SoundError(reason, str(error)) from error
    except (EOFError, RuntimeError, struct.error) as error:  # the last two of a chunk's size
        raise SoundError("sound-damaged", str(error) or "its header breaks off") from error
    _check(width, channels, rate)
    frame_size = channels * _BYTES_PER_SAMPLE
    data = data[: len(data) // frame_size * frame_size]
    whole = np.frombuffer(data, "<i2").reshape(-1, channels)  # (T, C)
    if len(whole) < num_frames:
        message = f"{len(whole)} of {num_frames} samples are there"
        raise SoundError("sound-truncated", message)
    return Sound(samples=whole, sampling_rate=rate)


def check_duration(sound: Sound, *, min_s: float, max_s: float) -> None:
    """Raise a SoundError for a length that is not allowed, in seconds."""
    if sound.duration_s > max_s:
        message = f"{sound.duration_s:.2f} s is more than {max_s:g} s"
        raise SoundError("sound-too-long", message)
    if sound.duration_s < min_s:
        message = f"{sound.duration_s:.2f} s is less than {min_s:g} s"
        raise SoundError("sound-too-short", message)


def _check(width: int, channels: int, rate: int) -> None:
    if width != _BYTES_PER_SAMPLE:
        message = f"it has {8 * width} bits a sample, and 16 are read"
        raise SoundError("sound-unsupported-format", message)
    if channels > MAX_CHANNELS:
        message = f"{channels} channels are more than {MAX_CHANNELS}"
        raise SoundError("sound-too-many-channels", message)
    if not MIN_SAMPLING_RATE <= rate <= MAX_SAMPLING_RATE:
        message = f"{rate} Hz is not between {MIN_SAMPLING_RATE} and {MAX_SAMPLING_RATE} Hz"
        raise SoundError("sound-sampling-rate", message)
