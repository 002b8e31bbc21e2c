"""The score stage: every scorer's columns for every text of every record; nothing is decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.settings import ScoreSettings
from filters.shared_captions import SharedCaptions
from filters.text import text_scores
from pipeline.device import use_threads
from pipeline.engine.fingerprint import unit_interval
from pipeline.engine.schemas import CAPTION_KINDS, SCORES, original_texts
from pipeline.engine.stage import Output, Row, Work

if TYPE_CHECKING:
    import pyarrow as pa

    from filters.clip import ClipScorers

_RECORD_COLUMNS = ("record_id", "image_id", "caption", "more_captions")
_PICTURE_COLUMNS = ("record_id", "image_id", "image_feature")

_SCORED_KINDS = (*CAPTION_KINDS, "negative")
"""What CLIP scores: texts that say what the picture shows, and negatives, which calibration needs.
A negative is a pair of no kind: it has no shuffled score, and no limit on CLIP's score is on it."""

_Key = tuple[str, str]
"""Record id and variant id of a text."""


class ScoreWorker:
    """Scores the source's captions and the LLM's texts of each record.

    A record whose picture could not be measured has no scores: `measure` has rejected it.

    Reads: `records` without pixels, `variants`, `pictures`.
    Writes: `scores`, one row a text. `clip_score` only for texts that say what the picture shows,
        and for negatives. Of a text that is longer than the model's context it is the mean over its
        sentences. It is computed from features in full precision: those of images are kept so, as
        rounding them to fp16 would move it by up to 3e-5, those of texts only for later use.
    Rejects: nothing; `select` applies the thresholds.
    Source: Hessel et al., CLIPScore, arXiv 2104.08718, section 3, without its factor 2.5.
    """

    def __init__(self, settings: ScoreSettings, models: Mapping[str, Path]) -> None:
        self._settings = settings
        self._models = models
        self._shared = SharedCaptions(models["captions"])

    @cached_property
    def _scorers(self) -> ClipScorers:
        """Loaded with the first picture: torch and open_clip take seconds, texts need neither."""
        from filters.clip import load_scorers

        return load_scorers(self._models["clip"], self._settings.clip)

    def __call__(self, work: Work) -> Output:
        """Score one part; batches are cut inside it, so the bytes do not depend on the workers."""
        pictures = work.read("pictures", _PICTURE_COLUMNS)
        measured = set(pictures["record_id"].to_pylist())
        records = [
            record
            for record in work.read("records", _RECORD_COLUMNS).to_pylist()
            if record["image_id"] is None or record["record_id"] in measured
        ]
        texts = _texts_by_record(records, work.read("variants").to_pylist())
        clip = self._clip_scores(pictures, texts)
        return Output(
            rows=[
                {
                    **dict.fromkeys(SCORES.names),
                    "record_id": record_id,
                    "variant_id": text["variant_id"],
                    "kind": text["kind"],
                    **text_scores(text["text"], self._settings)._asdict(),
                    "num_same_caption": self._shared.count(text["text"]),
                    **clip.get((record_id, text["variant_id"]), {}),
                }
                for record_id, own in texts.items()
                for text in own
            ]
        )

    def _clip_scores(
        self, pictures: pa.Table, texts: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> dict[_Key, Row]:
        """The CLIP columns of each text that describes a picture, rightly or wrongly."""
        found = [
            (place, (record_id, text["variant_id"]), text)
            for place, record_id in enumerate(pictures["record_id"].to_pylist())
            for text in texts.get(record_id, ())
            if text["kind"] in _SCORED_KINDS
        ]
        if not found:
            return {}
        from filters.clip import mean_feature

        places, keys, chosen = map(list, zip(*found, strict=True))
        words = [text["text"] for text in chosen]
        beside = pictures["image_id"].take(places).to_pylist()
        with use_threads(1):
            spoken = self._scorers.embed_texts(beside, words)  # (P, D) for each text
        features = pictures["image_feature"].combine_chunks()
        seen = features.flatten().to_numpy().reshape(len(features), -1)[places]  # (texts, D)
        cosines = [pieces @ feature for pieces, feature in zip(spoken, seen, strict=True)]
        captions = [row for row, text in enumerate(chosen) if text["kind"] in CAPTION_KINDS]
        partners = _wrong_partners(
            captions, keys, words, [self._scorers.fold(image) for image in beside]
        )
        return {
            key: {
                "clip_score": float(cosines[row].mean()),
                "clip_score_min": float(cosines[row].min()),
                "clip_is_long": len(pieces) > 1,
                "clip_score_shuffled": float((spoken[partners[row]] @ seen[row]).mean())
                if row in partners
                else None,
                "text_feature": mean_feature(pieces).astype(np.float16),
            }
            for row, (key, pieces) in enumerate(zip(keys, spoken, strict=True))
        }


def _texts_by_record(
    records: Sequence[Mapping[str, Any]], variants: Sequence[Mapping[str, Any]]
) -> dict[str, list[dict[str, str]]]:
    """For each record, the source's own captions and then its variants."""
    texts = {
        record["record_id"]: [
            {"variant_id": variant_id, "kind": "original", "text": text}
            for variant_id, text in original_texts(record)
        ]
        for record in records
    }
    for variant in variants:
        if variant["record_id"] in texts:
            texts[variant["record_id"]].append(
                {name: variant[name] for name in ("variant_id", "kind", "text")}
            )
    return texts


def _wrong_partners(
    captions: Sequence[int], keys: Sequence[_Key], texts: Sequence[str], groups: Sequence[int]
) -> dict[int, int]:
    """For each caption, one of its group with another record and another text, if there is one.

    Captions are laid in the order of a hash and each takes the next that differs, so that the
    choice is random over the part and the same in every run.
    """
    order = sorted(captions, key=lambda row: unit_interval("shuffled", *keys[row]))
    partners: dict[int, int] = {}
    for group in set(groups):
        ring = [row for row in order if groups[row] == group]
        for place, row in enumerate(ring):
            for step in range(1, len(ring)):
                other = ring[(place + step) % len(ring)]
                if keys[other][0] != keys[row][0] and texts[other] != texts[row]:
                    partners[row] = other
                    break
    return partners
