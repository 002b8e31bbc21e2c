"""The reject codes, scores and kinds in words, for readers who have never seen the code."""

from pipeline.publish.facts import LEFT_OUT_WITH_RECORD

REASONS = {
    "decode-failed": "the image could not be read",
    "decode-too-many-pixels": "the image is larger than the recipe allows",
    "ingest-image-too-large": "the file is larger than the recipe allows",
    "ingest-no-caption": "there is no caption beside the picture",
    "ingest-forgotten": "the corpus was asked to forget it",
    "ingest-caption-too-long": "the caption is longer than the recipe allows",
    "synthesis-malformed-json": "the answer was not the JSON that was asked for",
    "synthesis-cut-off": "the answer used up its tokens before it ended",
    "synthesis-empty": "the answer had nothing in it",
    "synthesis-too-long": "the text is longer than its kind may be",
    "synthesis-wrong-style": "the text does not begin as its style asks",
    "synthesis-repeats-record": "the text says no more than the caption that it was made from",
    "synthesis-engine-error": "the LLM's engine refused the request",
    LEFT_OUT_WITH_RECORD: "no caption of its record passed, or the record is a duplicate",
    "duplicate-image": "the same image as another record, which stays",
    "duplicate-text": "the same text as another record, which stays",
    "short-side-below-threshold": "the image is too small",
    "entropy-below-threshold": "the image is blank, or nearly so",
    "caption-quality-below-threshold": "the text fails a plain check, such as a word over and over",
    "clip-score-below-threshold": "picture and text do not fit each other well enough",
}
"""What each reason means; a reason that is not here is shown without an explanation."""

SCORES = {
    "clip_score": "CLIP score (cosine of picture and text)",
    "caption_quality": "caption quality (share of the checks that pass)",
    "entropy": "entropy of the grey levels (bits)",
    "short_side": "shorter side of the image (pixels)",
}
"""Each score of the scores table with its unit."""

KINDS = {
    "original": "source's caption",
    "caption": "LLM's caption",
    "style": "in a style",
    "negative": "negative",
}
"""The kinds of text."""
