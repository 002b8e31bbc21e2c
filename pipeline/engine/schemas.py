"""The Arrow schema of every table, with a description of each column.

The dataset card, `anymix explain` and the docs take their column descriptions from here.
A variant is a text for a record. The caption as the source gave it is one too: its `variant_id` is
`ORIGINAL`, and `original-NAME` is that of a further caption, so that scores and selection treat
them and the LLM's texts alike.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

ORIGINAL = "original"
"""The `variant_id` of the caption as the source gave it."""

CAPTION_KINDS = ("original", "caption")
"""Kinds of variant that describe the picture as it is; only these may become its positive pairs."""


def _column(name: str, kind: pa.DataType, description: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


_RECORD_ID = _column(
    "record_id", pa.string(), "Stable hash of the source's name and the record's key"
)
_VARIANT_ID = _column(
    "variant_id",
    pa.string(),
    f"Stable hash of a text of the record; `{ORIGINAL}` is the source's own, "
    f"`{ORIGINAL}-NAME` a further one",
)

RECORDS = pa.schema(
    [
        _RECORD_ID,
        _column("source", pa.string(), "Name of the source in the recipe"),
        _column("key", pa.string(), "The record's name inside its source"),
        _column(
            "image_id",
            pa.string(),
            "SHA-256 of the image's bytes; null without an image",
            nullable=True,
        ),
        _column(
            "image",
            pa.binary(),
            "The encoded image as the source gave it; null without one, or where it is referenced",
            nullable=True,
        ),
        _column(
            "image_ref",
            pa.string(),
            "Where the image's bytes lie in the source, with `ingest.images: reference`",
            nullable=True,
        ),
        _column("width", pa.int32(), "Image width in pixels", nullable=True),
        _column("height", pa.int32(), "Image height in pixels", nullable=True),
        _column("caption", pa.string(), "The text as the source gave it"),
        _column(
            "more_captions",
            pa.list_(pa.struct([pa.field("name", pa.string()), pa.field("text", pa.string())])),
            "Further captions of the source, each by the column or language that it is from",
        ),
        _column(
            "repairs",
            pa.list_(pa.string()),
            "What was put right while reading, as every viewer would: `exif-rotation`, …",
        ),
        _column(
            "document",
            pa.string(),
            "The interleaved document that the record is a piece of",
            nullable=True,
        ),
        _column("position", pa.int32(), "The record's place in its document", nullable=True),
        _column(
            "opt_outs",
            pa.list_(pa.string()),
            "Signals against data mining that came with the image: `x-robots-tag:noai`, …",
        ),
        _column("licence", pa.string(), "SPDX name of the licence, or as the source words it"),
        _column("attribution", pa.string(), "Whom to name when the record is used"),
        _column(
            "split", pa.string(), "`train` or `validation`, by the hash of the image or the text"
        ),
        _column("origin", pa.string(), "Where the record comes from: a URL or a path"),
    ]
)

_FORM = _column(
    "form",
    pa.string(),
    "The form of that kind: `tags`, `sentence`, `dense`; `style`; `absent`, `contrast`; "
    "`question`, `description`, `dialogue`; `bridge`",
)
_NEXT_ID = _column(
    "next_id",
    pa.string(),
    "For `interleave`: the record that the text leads to; null for other kinds",
    nullable=True,
)

_SAMPLING = (
    _column("model", pa.string(), "Name and fingerprint of the LLM"),
    _column("prompt", pa.string(), "Fingerprint of the prompt's template"),
    _column("temperature", pa.float32(), "Sampling temperature; 0 is greedy"),
    _column("top_p", pa.float32(), "Nucleus of the sampling"),
    _column("max_tokens", pa.int32(), "Tokens that the answer could have at most"),
    _column("seed", pa.int64(), "Sampling seed, drawn from record id, kind and attempt"),
)

VARIANTS = pa.schema(
    [
        _RECORD_ID,
        _VARIANT_ID,
        _column("kind", pa.string(), "`caption`, `style`, `negative`, `text` or `interleave`"),
        _FORM,
        _column("text", pa.string(), "What the LLM wrote"),
        _column(
            "style",
            pa.string(),
            "The visual style that was asked for; null for other kinds",
            nullable=True,
        ),
        _NEXT_ID,
        _column("attempt", pa.int32(), "Which try gave this text, from 1"),
        *_SAMPLING,
        _column("num_prompt_tokens", pa.int32(), "Tokens of the prompt that the text came from"),
        _column("num_output_tokens", pa.int32(), "Tokens of the answer that the text came from"),
    ]
)

ANSWERS = pa.schema(
    [
        _RECORD_ID,
        _column("kind", pa.string(), "The kind of text that was asked for"),
        _column(
            "role",
            pa.string(),
            "`write`, or what judges the texts of that attempt: `clip`, or `judge` for the LLM",
        ),
        _column("attempt", pa.int32(), "Which try this was, or is judged, from 1"),
        _column("forms", pa.list_(pa.string()), "The forms of it that were asked for, or judged"),
        _column("style", pa.string(), "The visual style that the record has drawn"),
        _NEXT_ID,
        _column("text", pa.string(), "The answer as it came; null without one", nullable=True),
        _column("error", pa.string(), "Why there is no answer; null with one", nullable=True),
        _column(
            "finish_reason",
            pa.string(),
            "`stop`, or `length` when the answer had used up its tokens; null where nobody said",
            nullable=True,
        ),
        _column("request", pa.string(), "Hash of the messages and of the sampling parameters"),
        *_SAMPLING,
        _column("num_prompt_tokens", pa.int32(), "Tokens of the prompt", nullable=True),
        _column("num_output_tokens", pa.int32(), "Tokens of the answer", nullable=True),
    ]
)

PICTURES = pa.schema(
    [
        _RECORD_ID,
        _column("image_id", pa.string(), "SHA-256 of the image's bytes"),
        _column("short_side", pa.float32(), "Shorter side of the image in pixels"),
        _column("aspect_ratio", pa.float32(), "Longer side over shorter side"),
        _column("entropy", pa.float32(), "Shannon entropy of the grey levels in bits"),
        _column("sharpness", pa.float32(), "How sharp the image is", nullable=True),
        _column("colourfulness", pa.float32(), "How colourful the image is", nullable=True),
        _column(
            "text_share", pa.float32(), "Share of the image that looks like text", nullable=True
        ),
        _column(
            "border",
            pa.float32(),
            "Share of the image that looks like a border or a watermark",
            nullable=True,
        ),
        _column("pixel_hash", pa.string(), "SHA-256 of the image's size and RGB pixels"),
        _column(
            "perceptual_hash",
            pa.binary(),
            "Lowest frequencies of the grey image, 64 int8; null for a blank one",
            nullable=True,
        ),
        _column("aesthetic", pa.float32(), "Aesthetic head on the image feature", nullable=True),
        _column("nsfw", pa.float32(), "NSFW head on the image feature", nullable=True),
        _column(
            "image_feature",
            # float32: rounded to fp16, scores would be off by 3e-5.
            pa.list_(pa.float32()),
            "CLIP's embedding of the image, a unit vector",
            nullable=True,
        ),
    ]
)

SCORES = pa.schema(
    [
        _RECORD_ID,
        _VARIANT_ID,
        _column("kind", pa.string(), "`original`, or the kind of an LLM's text"),
        _column(
            "caption_quality", pa.float32(), "Share of the caption's checks that passed, 0 to 1"
        ),
        _column(
            "caption_fault",
            pa.string(),
            "The first check of the caption that failed",
            nullable=True,
        ),
        _column(
            "clip_score",
            pa.float32(),
            "Cosine of CLIP's image and text embeddings; the mean over the sentences of a text "
            "that is longer than CLIP's context",
            nullable=True,
        ),
        _column(
            "clip_score_min",
            pa.float32(),
            "The same of the sentence that fits the image least",
            nullable=True,
        ),
        _column(
            "clip_is_long",
            pa.bool_(),
            "Whether the text is longer than CLIP's context",
            nullable=True,
        ),
        _column(
            "clip_score_shuffled",
            pa.float32(),
            "The CLIP score of this image and another record's text: what a wrong pair scores",
            nullable=True,
        ),
        _column(
            "text_feature",
            pa.list_(pa.float16()),
            "CLIP's embedding of the text, a unit vector",
            nullable=True,
        ),
    ]
)

DUPLICATES = pa.schema(
    [
        _RECORD_ID,
        _column(
            "duplicate_of",
            pa.string(),
            "The record that stays; with `evaluation`, the set and its item",
        ),
        _column(
            "method",
            pa.string(),
            "What is alike: `bytes`, `pixels`, `text`, `perceptual`, `semantic`; `evaluation`: a "
            "picture of an evaluation set",
        ),
        _column("distance", pa.float32(), "How far the two are apart; 0 is equal"),
        _column("threshold", pa.float32(), "The largest distance of a copy"),
        _column(
            "rule",
            pa.string(),
            "Why the other stays: `licence`, `resolution`, `clip-score`, `record-id`; `evaluation`",
        ),
    ]
)

SELECTION = pa.schema(
    [
        _RECORD_ID,
        _VARIANT_ID,
        _column("kind", pa.string(), "`original`, or the kind of an LLM's text"),
        _column("stream", pa.string(), "`text`, `image` or `mixed`"),
        _column("split", pa.string(), "`train` or `validation`"),
        _column(
            "weight",
            pa.float32(),
            "How often a reader takes this caption of the record; those of a record sum up to 1, "
            "by `select.weights` to less; null for a text that is no caption",
            nullable=True,
        ),
    ]
)

TOKENS = pa.schema(
    [
        _column("image_id", pa.string(), "SHA-256 of the image's bytes"),
        _column("rows", pa.int16(), "Height of the code grid"),
        _column("columns", pa.int16(), "Width of the code grid"),
        _column("codes", pa.binary(), "The codes in raster order, little-endian uint16"),
        _column(
            "squared_error",
            pa.float32(),
            "Mean squared error of the decoded image, a channel in [-1, 1]; for one image in 16",
            nullable=True,
        ),
    ]
)

SAMPLES = pa.schema(
    [
        _column("key", pa.string(), "Key of the sample, unique over the whole set"),
        _column("stream", pa.string(), "`text`, `image` or `mixed`"),
        _column("split", pa.string(), "`train` or `validation`"),
        _column("shard", pa.string(), "File name of the shard that holds the sample"),
        _column("shard_sha256", pa.string(), "SHA-256 of that shard's bytes"),
        _column("shard_size_bytes", pa.int64(), "Size of that shard"),
        _column("index_sha256", pa.string(), "SHA-256 of the bytes of that shard's index"),
        _column(
            "record_ids",
            pa.list_(pa.string()),
            "The records in the sample, in order; none in an LLM's text about a record's subject",
        ),
        _column(
            "variant_ids",
            pa.list_(pa.string()),
            "`record_id/variant_id` of every text in the sample",
        ),
    ]
)

REJECTS = pa.schema(
    [
        _RECORD_ID,
        _column(
            "variant_id",
            pa.string(),
            "The text that was left out; null when the whole record was",
            nullable=True,
        ),
        _column("kind", pa.string(), "What an LLM's text should have been", nullable=True),
        _column("form", pa.string(), "The form of it", nullable=True),
        _column("attempt", pa.int32(), "Which try gave that text, from 1", nullable=True),
        _column("stage", pa.string(), "The stage that decided"),
        _column("reason", pa.string(), "Stable reason code"),
        _column("detail", pa.string(), "The reason in words", nullable=True),
        _column("score", pa.float32(), "The score that decided", nullable=True),
        _column("threshold", pa.float32(), "The limit that it missed", nullable=True),
    ]
)


TABLES = {
    "records": RECORDS,
    "variants": VARIANTS,
    "answers": ANSWERS,
    "pictures": PICTURES,
    "scores": SCORES,
    "duplicates": DUPLICATES,
    "selection": SELECTION,
    "tokens": TOKENS,
    "samples": SAMPLES,
    "rejects": REJECTS,
}
"""Every table by its name."""


def original_texts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The source's texts of a row of `records` as (variant_id, text), its caption first."""
    yield ORIGINAL, record["caption"]
    for further in record["more_captions"]:
        yield f"{ORIGINAL}-{further['name']}", further["text"]


def reject(
    *,
    record_id: str,
    stage: str,
    reason: str,
    variant_id: str | None = None,
    detail: str | None = None,
    score: float | None = None,
    threshold: float | None = None,
) -> dict[str, object]:
    """One row of a rejects table; what is left out here is null."""
    return {
        "record_id": record_id,
        "variant_id": variant_id,
        "kind": None,
        "form": None,
        "attempt": None,
        "stage": stage,
        "reason": reason,
        "detail": detail,
        "score": score,
        "threshold": threshold,
    }
