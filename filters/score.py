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
from pipeline.engine.fingerprint import unit_interval
from pipeline.engine.schemas import CAPTION_KINDS, SCORES, original_texts
from pipeline.engine.stage import Output, Row, Work

if TYPE_CHECKING:
    from filters.clip import CrossFitScorers

_RECORD_COLUMNS = ("record_id", "image_id", "caption", "more_captions")
_PICTURE_COLUMNS = ("record_id", "image_id", "image_feature")

_Key = tuple[str, str]
"""Record id and variant id of a text."""


class ScoreWorker:
    """Scores the source's captions and the LLM's texts of each record.

    A record whose picture could not be measured has no scores: `measure` has rejected it.

    Reads: `records` without pixels, `variants`, `pictures`.
    Writes: `scores`, one row a text. `clip_score` only for texts that say what the picture shows.
    Rejects: nothing; `select` applies the thresholds.
    Source: Hessel et al., CLIPScore, arXiv 2104.08718, section 3, without its factor 2.5.
    """

    def __init__(self, settings: ScoreSettings, models: Mapping[str, Path]) -> None:
        self._settings = settings
        self._models = models
        self._shared = SharedCaptions(models["captions"])

    @cached_property
    def _scorers(self) -> CrossFitScorers:
        """Loaded with the first picture: torch and open_clip take seconds, texts need neither."""
        from filters.clip import CrossFitScorers
        from pipeline.device import use_threads

        use_threads(1)
        return CrossFitScorers(self._models["clip"], self._settings.clip)

    def __call__(self, work: Work) -> Output:
        """Score one part; batches are cut inside it, so the bytes do not depend on the workers."""
        pictures = {
            row["record_id"]: row for row in work.read("pictures", _PICTURE_COLUMNS).to_pylist()
        }
        records = [
            record
            for record in work.read("records", _RECORD_COLUMNS).to_pylist()
            if record["image_id"] is None or record["record_id"] in pictures
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
        self,
        pictures: Mapping[str, Mapping[str, Any]],
        texts: Mapping[str, Sequence[Mapping[str, Any]]],
    ) -> dict[_Key, Row]:
        """The CLIP columns of each text that describes a picture."""
        described = {
            (record_id, text["variant_id"]): text["text"]
            for record_id in pictures
            for text in texts.get(record_id, ())
            if text["kind"] in CAPTION_KINDS
        }
        if not described:
            return {}
        keys, words = list(described), list(described.values())
        beside = [pictures[record_id]["image_id"] for record_id, _ in keys]
        seen = np.asarray(
            [pictures[record_id]["image_feature"] for record_id, _ in keys], dtype=np.float32
        )  # (texts, D)
        spoken = self._scorers.embed_texts(beside, words)  # (texts, D)
        partners = _wrong_partners(keys, words, [self._scorers.fold(image) for image in beside])
        own = (seen * spoken).sum(axis=1)
        other = (seen * spoken[partners]).sum(axis=1)
        return {
            key: {
                "clip_score": float(own[row]),
                "clip_score_shuffled": float(other[row]) if partners[row] != row else None,
            }
            for row, key in enumerate(keys)
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


def _wrong_partners(keys: Sequence[_Key], texts: Sequence[str], groups: Sequence[int]) -> list[int]:
    """For each pair, one of its group with another record and another text; itself if none.

    Pairs are laid in the order of a hash and each takes the next that differs, so that the choice
    is random over the part and the same in every run.
    """
    order = sorted(range(len(keys)), key=lambda row: unit_interval("shuffled", *keys[row]))
    partners = list(range(len(keys)))
    for group in set(groups):
        ring = [row for row in order if groups[row] == group]
        for place, row in enumerate(ring):
            for step in range(1, len(ring)):
                other = ring[(place + step) % len(ring)]
                if keys[other][0] != keys[row][0] and texts[other] != texts[row]:
                    partners[row] = other
                    break
    return partners
