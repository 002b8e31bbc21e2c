"""What every loader does with its samples, beside ours: choose, drop, mix, pack, number.

It runs in the rivals' environments as well, so it imports nothing but numpy and our packer, which
all of them share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.data.packing import build_row, pack

TEXT, END_TEXT, IMAGE, END_IMAGE, END, PAD = 2, 3, 4, 5, 1, 0
FIRST_ID, FIRST_CODE = 32, 4128
NUM_CODES = 576
SEQ_LEN = 2048
ROWS_PER_WINDOW = 256
CAPTION_MAX_TOKENS = 128
SHARES = {"text": 0.4, "image": 0.4, "mixed": 0.2}
DROPPED = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """A sample as a rival's format gives it: all texts as ids, beside the codes.

    Attributes:
        codes: (n * 576,) uint16.
        ids: the ids of all captions, one after the other.
        lengths: of each caption.
        upto: where each caption's share of the draws ends.
        counts: captions of each text.
    """

    codes: np.ndarray
    ids: np.ndarray
    lengths: np.ndarray
    upto: np.ndarray
    counts: np.ndarray


def run(
    open_streams: Callable[[], Mapping[str, Callable[[], Raw]]], num_rows: int
) -> dict[str, float]:
    """Pack so many rows after a first window.

    Args:
        open_streams: gives for each stream what gives the next of its samples in a random order.
        num_rows: after those of the first window.

    Returns:
        `tokens`, and the seconds of the clock and of the processor, of those rows; seconds of the
        clock from the start to the end of the first window; peak memory in MB.
    """
    began = time.perf_counter()
    next_sample = open_streams()
    rng = np.random.default_rng(0)
    num_tokens = dict.fromkeys(SHARES, 0)
    window_s = cpu = 0.0
    rows = tokens = 0
    while rows < num_rows:
        documents: list[np.ndarray] = []
        length = 0
        while length < ROWS_PER_WINDOW * SEQ_LEN:
            stream = min(SHARES, key=lambda name: num_tokens[name] / SHARES[name])
            document = _document(stream, next_sample[stream](), rng)
            documents.append(document)
            num_tokens[stream] += len(document)
            length += len(document)
        lengths = np.array([len(document) for document in documents])
        packed = [
            build_row([documents[n] for n in row], seq_len=SEQ_LEN, pad=PAD)
            for row in pack(lengths, seq_len=SEQ_LEN)
        ]
        if window_s:
            rows, tokens = rows + len(packed), tokens + length
        else:
            window_s, cpu = time.perf_counter() - began, time.process_time()
    return {
        "tokens": tokens,
        "wall_s": time.perf_counter() - began - window_s,
        "cpu_s": time.process_time() - cpu,
        "window_s": window_s,
        "peak_mb": peak_mb(),
    }


def peak_mb() -> int:
    """The most memory that this process has had; getrusage would tell its parent's, if greater."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def _document(stream: str, raw: Raw, rng: np.random.Generator) -> np.ndarray:
    """The ids of a sample, with a caption of each text chosen by weight."""
    texts = []
    first = 0
    ends = np.cumsum(raw.lengths)
    for count in raw.counts.tolist():
        chosen = first + int(np.searchsorted(raw.upto[first : first + count], rng.random()))
        ids = raw.ids[ends[chosen] - raw.lengths[chosen] : ends[chosen]]
        ids = ids[: SEQ_LEN - 3] if stream == "text" else ids[:CAPTION_MAX_TOKENS]
        texts.append([[TEXT], ids + np.uint32(FIRST_ID), [END_TEXT]])
        first += count
    pictures = [
        [[IMAGE], codes + np.uint32(FIRST_CODE), [END_IMAGE]]
        for codes in raw.codes.reshape(-1, NUM_CODES)
    ]
    if stream == "image" and rng.random() < DROPPED:
        texts = [[[TEXT], [END_TEXT]]]
    if stream == "image":
        pieces = [*texts[0], *pictures[0]]
    else:
        longer = max(len(texts), len(pictures))
        pieces = [
            piece
            for number in range(longer)
            for group in (pictures, texts)
            if number < len(group)
            for piece in group[number]
        ]
    return np.concatenate([*pieces, [END]]).astype(np.int64)
