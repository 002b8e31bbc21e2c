"""Where everything in a shard lies, so that a loader takes any sample without reading the tar.

Beside `image-000003.tar` lies `image-000003.index`: an Arrow IPC file with a row per sample, its
texts as ids of the corpus's text tokenizer, and the place and checksum of each picture's codes in
the tar. It is mapped, not read, so that a million samples cost a process no memory of its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from pipeline.errors import UserError
from tokenizer_cache.shard_reading import Caption, ImageSegment, Sample, TextSegment
from tokenizer_cache.text import TextTokenizer

BYTES_PER_CODE = 2
NO_PICTURE = -1
"""`at` of a segment that is a text."""
VARIANT_KINDS = ("style", "negative")
"""Kinds of texts that are written for a picture and do not describe it, by their number."""

_CAPTION = pa.struct(
    [
        # The share of the draws that fall on this caption or on one before it.
        pa.field("upto", pa.float32(), nullable=False),
        pa.field("ids", pa.list_(pa.field("id", pa.uint32(), nullable=False)), nullable=False),
    ]
)
_SEGMENT = pa.struct(
    [
        pa.field("captions", pa.list_(pa.field("caption", _CAPTION, nullable=False)),
                 nullable=False),
        pa.field("at", pa.int64(), nullable=False),  # the first code's byte in the tar
        pa.field("rows", pa.uint16(), nullable=False),
        pa.field("columns", pa.uint16(), nullable=False),
        pa.field("crc32", pa.uint32(), nullable=False),
        # Checksums of the codes of its crops, which follow its own in the tar.
        pa.field("crops", pa.list_(pa.field("crc32", pa.uint32(), nullable=False)),
                 nullable=False),
    ]
)  # fmt: skip
_INDEX = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("segments", pa.list_(pa.field("segment", _SEGMENT, nullable=False)),
                 nullable=False),
    ]
)  # fmt: skip
_VARIANT = pa.struct(
    [
        pa.field("kind", pa.uint8(), nullable=False),
        pa.field("ids", pa.list_(pa.field("id", pa.uint32(), nullable=False)), nullable=False),
    ]
)
# Only where a sample of the shard has any: an index without is that of earlier versions.
_VARIANTS = pa.field(
    "variants", pa.list_(pa.field("variant", _VARIANT, nullable=False)), nullable=False
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIndex:
    """The samples of a shard as flat arrays: N samples, S segments, C captions, I ids.

    What belongs to one thing lies between its entry and the next one: the segments of sample n are
    `first_segment[n]` to `first_segment[n + 1]`, and so on down to the ids.

    Attributes:
        tokenizer: fingerprint of the text tokenizer whose ids they are.
        keys: (N,) the samples' keys.
        first_segment: (N + 1,) int32.
        first_caption: (S + 1,) int32; a picture has none.
        at: (S,) int64, where the codes of a picture or a sound begin in the tar, or `NO_PICTURE`.
        rows: (S,) uint16, height of the code grid; the frames of a sound.
        columns: (S,) uint16, width of it; the codebooks of a sound.
        crc32: (S,) uint32, checksum of the codes' bytes.
        first_crop: (S + 1,) int32; crops lie in the tar one after the other behind their picture.
        crop_crc32: checksums of their codes' bytes, uint32.
        upto: (C,) float32, where a caption's share of the draws ends; 1 for the last of a text.
        first_id: (C + 1,) int32.
        ids: (I,) uint32.
        first_variant: (N + 1,) int32; styles and negatives of a sample, W in all.
        variant_kind: (W,) uint8, place in `VARIANT_KINDS`.
        first_variant_id: (W + 1,) int32.
        variant_ids: uint32.
    """

    tokenizer: str
    keys: pa.StringArray
    first_segment: np.ndarray
    first_caption: np.ndarray
    at: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    crc32: np.ndarray
    first_crop: np.ndarray
    crop_crc32: np.ndarray
    upto: np.ndarray
    first_id: np.ndarray
    ids: np.ndarray
    first_variant: np.ndarray
    variant_kind: np.ndarray
    first_variant_id: np.ndarray
    variant_ids: np.ndarray

    def key(self, sample: int) -> str:
        """The key of a sample."""
        return str(self.keys[sample].as_py())

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map the index at a local path.

        Raises:
            UserError: when the file is no index.
        """
        try:
            # The arrays keep the mapping; the file itself is closed, so that thousands can be open.
            with pa.memory_map(str(path)) as file:
                batch = pa.ipc.open_file(file).get_batch(0)
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(
                f"{path} is not the index of a shard: {error}",
                "`anymix run RECIPE --repair` writes it anew.",
            ) from error
        segments = batch.column("segments")
        segment = segments.values
        captions = segment.field("captions")
        ids = captions.values.field("ids")
        crops = segment.field("crops")
        # By DLPack, as `to_numpy` imports pandas: a third of a second of every start.
        return cls(
            tokenizer=batch.schema.metadata[b"tokenizer"].decode(),
            keys=batch.column("key"),
            first_segment=np.from_dlpack(segments.offsets),
            first_caption=np.from_dlpack(captions.offsets),
            at=np.from_dlpack(segment.field("at")),
            rows=np.from_dlpack(segment.field("rows")),
            columns=np.from_dlpack(segment.field("columns")),
            crc32=np.from_dlpack(segment.field("crc32")),
            first_crop=np.from_dlpack(crops.offsets),
            crop_crc32=np.from_dlpack(crops.values),
            upto=np.from_dlpack(captions.values.field("upto")),
            first_id=np.from_dlpack(ids.offsets),
            ids=np.from_dlpack(ids.values),
            **_open_variants(batch),
        )


def write_index(
    path: Path, samples: Iterable[tuple[Sample, int | None]], text: TextTokenizer, tokenizer: str
) -> None:
    """Write the index of a shard; its bytes depend on nothing but the arguments.

    Args:
        path: where it is to lie.
        samples: each with the byte of the tar at which its first code lies, if it has any.
        text: makes the ids.
        tokenizer: fingerprint of `text`.
    """
    rows = [
        {
            "key": sample.key,
            "segments": _segments(sample, at, text),
            "variants": _variants(sample, text),
        }
        for sample, at in samples
    ]
    schema = _INDEX
    if any(row["variants"] for row in rows):
        schema = schema.append(_VARIANTS)
    schema = schema.with_metadata({"tokenizer": tokenizer})
    batch = pa.RecordBatch.from_pylist(rows, schema=schema)
    with pa.ipc.new_file(str(path), schema) as file:
        file.write_batch(batch)


def _open_variants(batch: pa.RecordBatch) -> dict[str, np.ndarray]:
    if "variants" not in batch.schema.names:
        nothing = np.zeros(0, np.uint32)
        firsts = {"first_variant": np.zeros(batch.num_rows + 1, np.int32)}
        firsts["first_variant_id"] = np.zeros(1, np.int32)
        return {**firsts, "variant_kind": nothing, "variant_ids": nothing}
    variants = batch.column("variants")
    ids = variants.values.field("ids")
    return {
        "first_variant": np.from_dlpack(variants.offsets),
        "variant_kind": np.from_dlpack(variants.values.field("kind")),
        "first_variant_id": np.from_dlpack(ids.offsets),
        "variant_ids": np.from_dlpack(ids.values),
    }


def _variants(sample: Sample, text: TextTokenizer) -> list[dict[str, Any]]:
    """The styles and negatives of a sample with one picture; a mixed one does not say whose."""
    if sample.stream != "image":
        return []
    return [
        {"kind": VARIANT_KINDS.index(each["kind"]), "ids": text.encode(each["text"])}
        for each in sample.variants
        if each["kind"] in VARIANT_KINDS
    ]


def _segments(sample: Sample, at: int | None, text: TextTokenizer) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for segment in sample.segments:
        if isinstance(segment, TextSegment):
            nothing = {"at": NO_PICTURE, "rows": 0, "columns": 0, "crc32": 0, "crops": []}
            rows.append({"captions": _captions(segment.captions, text), **nothing})
            continue
        assert at is not None, "a sample with a picture or a sound has codes"  # noqa: S101
        height, width = segment.codes.shape
        views = [segment.codes, *(segment.crops if isinstance(segment, ImageSegment) else ())]
        own, *crops = (zlib.crc32(codes.astype("<u2").tobytes()) for codes in views)
        place = {"at": at, "rows": height, "columns": width, "crc32": own, "crops": crops}
        rows.append({"captions": [], **place})
        at += (1 + len(crops)) * height * width * BYTES_PER_CODE
    return rows


def _captions(captions: Sequence[Caption], text: TextTokenizer) -> list[dict[str, Any]]:
    """Each caption's ids, and its share of the draws; without weights all are alike."""
    weights = np.array([1.0 if each.weight is None else each.weight for each in captions])
    if not weights.any():
        weights[:] = 1
    upto = np.cumsum(weights) / weights.sum()
    upto[-1] = 1
    return [
        {"upto": end, "ids": text.encode(each.text)}
        for end, each in zip(upto.tolist(), captions, strict=True)
    ]
