"""The Arrow schema of every table, with a description of each column.

The dataset card, `anymix explain` and the docs take their column descriptions from here.
A variant is a text for a record. The caption as the source gave it is one too: its `variant_id` is
`ORIGINAL`, and `original-NAME` is that of a further caption, so that scores and selection treat
them and the LLM's texts alike.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from pipeline.engine.columns import RECORD_ID as _RECORD_ID
from pipeline.engine.columns import VARIANT_ID as _VARIANT_ID
from pipeline.engine.columns import column as _column
from pipeline.engine.synthesis_schemas import ANSWERS, VARIANTS
from pipeline.engine.token_schemas import AUDIO_TOKENS, SAMPLES, TOKENS

ORIGINAL = "original"
"""The `variant_id` of the caption as the source gave it."""

CAPTION_KINDS = ("original", "caption")
"""Kinds of variant that describe the picture as it is; only these may become its positive pairs."""


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
        _column(
            "sound_id",
            pa.string(),
            "SHA-256 of the sound's bytes; null without a sound",
            nullable=True,
        ),
        _column("sound", pa.binary(), "The sound's file as the source gave it", nullable=True),
        _column("sampling_rate", pa.int32(), "Samples of the sound in a second", nullable=True),
        _column("duration_s", pa.float32(), "Length of the sound in seconds", nullable=True),
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

PICTURES = pa.schema(
    [
        _RECORD_ID,
        _column("image_id", pa.string(), "SHA-256 of the image's bytes"),
        _column("short_side", pa.float32(), "Shorter side of the image in pixels"),
        _column("aspect_ratio", pa.float32(), "Longer side over shorter side"),
        _column("entropy", pa.float32(), "Shannon entropy of the grey levels in bits"),
        _column(
            "sharpness",
            pa.float32(),
            "Variance of the Laplacian of the image at 512 px: the lower, the more blurred",
            nullable=True,
        ),
        _column(
            "colourfulness",
            pa.float32(),
            "Hasler and Süsstrunk's: 0 for grey, about 15 slightly, 45 averagely, 109 extremely so",
            nullable=True,
        ),
        _column(
            "text_share",
            pa.float32(),
            "Share of the image that looks like printed text",
            nullable=True,
        ),
        _column(
            "border",
            pa.float32(),
            "Share of the image in plain bands along its edges",
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
            "language",
            pa.string(),
            "The likeliest language, ISO 639-1; null for a text without letters",
            nullable=True,
        ),
        _column("language_score", pa.float32(), "Its probability", nullable=True),
        _column(
            "num_words",
            pa.int32(),
            "Words; each character of Chinese and Japanese is one",
            nullable=True,
        ),
        _column(
            "repetition",
            pa.float32(),
            "Largest share of the words that one word, or a phrase that comes again, takes",
            nullable=True,
        ),
        _column(
            "num_same_caption",
            pa.int32(),
            "Images of the corpus to which a source gives just this text, when they were counted",
            nullable=True,
        ),
        _column("num_urls", pa.int32(), "Addresses of pages in the text", nullable=True),
        _column(
            "num_personal",
            pa.int32(),
            "E-mail addresses and telephone numbers in the text",
            nullable=True,
        ),
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
            "CLIP's embedding of the text, a unit vector; of a text that is longer than CLIP's "
            "context the direction of the mean of its sentences'",
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
            "What is alike: `bytes`, `pixels`, `text`, `sound`, `perceptual`, `semantic`; "
            "`evaluation`: a picture of an evaluation set",
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

REFUSALS = pa.schema(
    [
        _RECORD_ID,
        _column(
            "variant_id",
            pa.string(),
            "The text that may not be used; null when the whole record may not",
            nullable=True,
        ),
        _column("reason", pa.string(), "Reason code of the reject"),
        _column("detail", pa.string(), "What was found, and which entry of a list says so"),
    ]
)

SELECTION = pa.schema(
    [
        _RECORD_ID,
        _VARIANT_ID,
        _column("kind", pa.string(), "`original`, or the kind of an LLM's text"),
        _column("stream", pa.string(), "`text`, `image`, `mixed` or `audio`"),
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
    "refusals": REFUSALS,
    "selection": SELECTION,
    "tokens": TOKENS,
    "audio_tokens": AUDIO_TOKENS,
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
