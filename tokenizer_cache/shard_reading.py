"""From shards back to samples: what a loader, a test or a curious person iterates over."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from webdataset.tariterators import group_by_keys, tar_file_expander


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A text of a segment.

    Attributes:
        text: what it says.
        variant_id: its id; None where the sample has no other text.
        kind: `original`, `caption` or `interleave`.
        form: the form of an LLM's text.
        weight: how often a reader takes it; None where there is no other.
        clip_score: None where the text has no image or nothing scored the pair.
    """

    text: str
    variant_id: str | None = None
    kind: str | None = None
    form: str | None = None
    weight: float | None = None
    clip_score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSegment:
    """Texts that all say the same; a reader takes one, by weight. There is at least one."""

    captions: tuple[Caption, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSegment:
    """An image as its codes.

    Attributes:
        codes: (h, w) uint16.
        crops: (c, h, w) uint16, of squares that are cut out of it; c is mostly 0.
    """

    codes: np.ndarray
    crops: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioSegment:
    """A sound as its codes, (n, q) uint16: n frames, one after another in time, of q codebooks."""

    codes: np.ndarray


Segment = TextSegment | ImageSegment | AudioSegment


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample of a shard as the sequence that a model reads.

    Attributes:
        key: its key in the shard, unique over the corpus.
        stream: `text`, `image`, `mixed` or `audio`.
        segments: a text; or a text and its image, or its sound; or images, each followed by its
            text, with texts that have no image between them where the source's document has such.
        variants: styles and negatives, never a description of an image as it is.
        metadata: `record_ids` and `provenance`, one entry per record.
    """

    key: str
    stream: str
    segments: tuple[Segment, ...]
    variants: tuple[dict[str, Any], ...]
    metadata: dict[str, Any]


def read_shard(path: Path) -> Iterator[Sample]:
    """The samples of one shard, in the order of the file."""
    with path.open("rb") as stream:  # webdataset would start the store's own command to read it
        members = tar_file_expander([{"url": str(path), "stream": stream}])
        # webdataset's `.decode()` would unpickle a member that is called `KEY.pyd`.
        for files in group_by_keys(members):
            yield to_sample(files.pop("__key__"), files)


def to_sample(key: str, files: Mapping[str, bytes]) -> Sample:
    """The sample of a key's files by extension."""
    metadata = json.loads(files["json"])
    captions, segments = metadata.pop("captions", None), metadata.pop("segments", None)
    variants = metadata.pop("variants", "")
    parts: list[Segment]
    if "txt" in files:
        stream, parts = "text", [TextSegment(captions=(Caption(text=files["txt"].decode()),))]
    elif "audio.npy" in files:
        codes = np.load(io.BytesIO(files["audio.npy"]), allow_pickle=False)
        stream, parts = "audio", [_to_text(captions), AudioSegment(codes=codes)]
    else:
        codes = np.load(io.BytesIO(files["codes.npy"]), allow_pickle=False)
        if captions is not None:
            metadata.pop("boxes", None)
            views = codes.reshape(-1, *codes.shape[-2:])  # (1 + c, h, w)
            stream, parts = "image", [_to_text(captions), _to_image(views)]
        else:
            stream = "mixed"
            parts = [
                _to_image(codes[segment["index"]][None])
                if segment["type"] == "image"
                else _to_text(segment["captions"])
                for segment in segments
            ]
    return Sample(
        key=key,
        stream=stream,
        segments=tuple(parts),
        variants=tuple(json.loads(line) for line in variants.split("\n") if line),
        metadata=metadata,
    )


def _to_image(views: np.ndarray) -> ImageSegment:
    return ImageSegment(codes=views[0], crops=views[1:])


def _to_text(captions: list[dict[str, Any]]) -> TextSegment:
    return TextSegment(captions=tuple(Caption(**caption) for caption in captions))
