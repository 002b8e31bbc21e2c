"""The reject codes, scores and kinds in words, for readers who have never seen the code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.selection.sentences import NO_ALTERNATIVE
from pipeline.synthesis import critics
from pipeline.synthesis.backends import errors

LEFT_OUT_WITH_RECORD = "its-record-was-left-out"
"""Why a text that no rule refused is not in the shards. No reject code: the record has one."""

REASONS = {code: f"the text {what}" for code, what in critics.REASONS.items()} | {
    "decode-failed": "the image could not be read",
    "decode-too-many-pixels": "the image is larger than the recipe allows",
    "decode-empty": "the image has no bytes",
    "decode-truncated": "the image breaks off",
    "decode-html": "there is a web page in the image's place",
    "decode-not-an-image": "there is another kind of file in the image's place",
    "decode-unsupported-format": "the image is of a format that is not decoded here",
    "decode-unsupported-mode": "the samples are measurements, not colours",
    "decode-too-small": "a side of the image is shorter than the recipe allows",
    "decode-aspect-ratio": "the image is longer and narrower than the recipe allows",
    "decode-svg-external-reference": "the drawing names or holds another file",
    "decode-svg-damaged": "the drawing could not be read",
    "sound-empty": "the sound has no bytes",
    "sound-damaged": "the sound's header breaks off or contradicts itself",
    "sound-truncated": "the sound breaks off",
    "sound-not-finite": "a sample of the sound is infinite or not a number",
    "sound-unsupported-format": "the sound is in a format that is not decoded here",
    "sound-too-many-channels": "the sound has more than two channels",
    "sound-sampling-rate": "the sound's sampling rate is none that is used for sound",
    "sound-too-long": "the sound is longer than the recipe allows",
    "sound-too-short": "the sound is shorter than the recipe allows",
    "ingest-opted-out": "its owner does not want it mined",
    "ingest-duplicate-key": "its key is there already",
    "ingest-not-adjacent": "the sample's files are not next to each other in the tar",
    "ingest-dotted-key": "it has several pictures, since its key ends at the first dot",
    "ingest-several-images": "its row names several pictures",
    "ingest-no-key": "its row names no picture or key",
    "ingest-image-missing": "there is no such file",
    "ingest-file-unreadable": "the file cannot be read",
    "ingest-path-outside": "its path leads out of the source",
    "ingest-tar-link": "it is a link, not a file",
    "ingest-tar-device": "it is a device, not a file",
    "ingest-tar-truncated": "the tar breaks off",
    "ingest-tar-damaged": "the tar is damaged",
    "ingest-tar-unsupported": "the archive is no tar, or is compressed in an unknown way",
    "ingest-tar-too-large": "the tar unpacks to far more than it should",
    "ingest-no-image": "there is no image",
    "ingest-download-failed": "the downloader could not fetch it",
    "ingest-metadata-malformed": "its metadata is not the JSON that it should be",
    "ingest-metadata-too-large": "its metadata is too large",
    "ingest-caption-empty": "the caption has nothing to read in it",
    "ingest-caption-not-utf-8": "the caption is not UTF-8",
    "ingest-image-too-large": "the file is larger than the recipe allows",
    "ingest-no-caption": "there is no caption",
    "ingest-forgotten": "the corpus was asked to forget it",
    "ingest-caption-too-long": "the caption is longer than the recipe allows",
    "synthesis-malformed-json": "the answer was not the JSON that was asked for",
    "synthesis-cut-off": "the answer used up its tokens before it ended",
    "synthesis-empty": "the answer had nothing in it",
    "synthesis-too-long": "the text is longer than its kind may be",
    "synthesis-wrong-style": "the text does not begin as its style asks",
    "synthesis-repeats-record": "the text says no more than the caption that it was made from",
    **errors.REASONS,
    LEFT_OUT_WITH_RECORD: "no caption of its record passed, or the record is a duplicate",
    "bridge-without-end": "the record that the text leads to is not beside it",
    NO_ALTERNATIVE: "of the sets of rules of which one must hold, none does",
    "licence-not-allowed": "its licence is none of those that the recipe allows",
    "opted-out": "its owner does not want it mined",
    "blocked-domain": "it is from a domain on the recipe's list",
    "blocked-image": "its image is on the recipe's list",
    "blocked-text": "it has words that are on the recipe's list",
    "duplicate-image": "the same image as another record, which stays",
    "duplicate-pixels": "the same pixels as another record, which stays",
    "duplicate-text": "the same text as another record, which stays",
    "duplicate-sound": "the same sound as another record, which stays",
    "duplicate-perceptual": "it looks like another record, which stays",
    "duplicate-semantic": "it shows the same as another record, which stays",
    "duplicate-evaluation": "it is a copy of a picture in an evaluation set",
    "short-side-below-threshold": "the image is too small",
    "entropy-below-threshold": "the image is blank, or nearly so",
    "caption-quality-below-threshold": "the text fails a plain check, such as a word over and over",
    "aspect-ratio-above-threshold": "the image is too long and narrow",
    "sharpness-below-threshold": "the image is blurred",
    "colourfulness-below-threshold": "the image has too little colour",
    "text-share-above-threshold": "the image looks like a page of text",
    "border-above-threshold": "too much of the image is a plain border",
    "aesthetic-below-threshold": "the image is not beautiful enough for the recipe's head",
    "nsfw-above-threshold": "the recipe's head takes the image for unsafe",
    "num-words-below-threshold": "the text has too few words",
    "num-words-above-threshold": "the text has too many words",
    "repetition-above-threshold": "the text says one thing over and over",
    "num-urls-above-threshold": "the text has addresses of pages in it",
    "num-personal-above-threshold": "the text has e-mail addresses or telephone numbers in it",
    "num-same-caption-above-threshold": "too many images have the same caption",
    "clip-score-below-threshold": "picture and text do not fit each other well enough",
}
"""What each reason means; `meaning` makes up those of limits that are not here."""

SCORES = {
    "clip_score": "CLIP score (cosine of picture and text)",
    "caption_quality": "caption quality (share of the checks that pass)",
    "entropy": "entropy of the grey levels (bits)",
    "short_side": "shorter side of the image (pixels)",
    "aspect_ratio": "longer side of the image over its shorter side",
    "sharpness": "sharpness of the image (variance of the Laplacian)",
    "colourfulness": "colourfulness of the image (Hasler and Süsstrunk)",
    "text_share": "share of the image that looks like text",
    "border": "share of the image that is a plain border",
    "aesthetic": "aesthetic score of the image, by the recipe's head",
    "nsfw": "NSFW score of the image, by the recipe's head",
    "num_words": "words of the text",
    "repetition": "share of the text that is one thing over and over",
    "num_same_caption": "images with the same caption",
}
"""Each score with its unit."""

KINDS = {
    "original": "source's caption",
    "caption": "LLM's caption",
    "style": "in a style",
    "negative": "negative",
    "text": "about the subject",
    "interleave": "leads on",
}
"""The kinds of text."""

_ENDS = {
    "-below-threshold": ("below", "is below the least that the recipe keeps"),
    "-above-threshold": ("above", "is above the most that the recipe keeps"),
    "-below-top": ("below", "is not among the best that the recipe keeps"),
}
"""How a score missed its limit, by the end of the reject's code: with the limit, and without."""


def meaning(reason: str) -> str:
    """What a reject's code says, in words; empty for one that nobody has explained."""
    if reason in REASONS:
        return REASONS[reason]
    for end, (_, words) in _ENDS.items():
        if reason.endswith(end):
            return f"its {_score_of(reason, end)} {words}"
    return ""


def why(reject: Mapping[str, Any]) -> str:
    """The reason of a reject: its code, then what that means, with score and threshold."""
    reason, detail = str(reject["reason"]), reject["detail"]
    score, threshold = reject["score"], reject["threshold"]
    for end, (side, _) in _ENDS.items():
        if reason.endswith(end) and score is not None and threshold is not None:
            words = f"its {_score_of(reason, end)} {score:.4g} is {side} {threshold:.4g}"
            return f"{reason}: {words}" + (f", {detail}" if detail else "")
    words = f"{reason}: {meaning(reason)}" if meaning(reason) else reason
    words += f" ({detail})" if detail else ""
    if score is not None:
        words += f", its score is {score:.4g}"
    if threshold is not None:
        words += f", the threshold {threshold:.4g}"
    return words


def _score_of(reason: str, end: str) -> str:
    """The score that a reject's code names."""
    return reason.removesuffix(end).replace("-", "_")
