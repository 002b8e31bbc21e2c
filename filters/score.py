"""The score stage: every scorer's columns for every text of every record; nothing is decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.picture import picture_scores
from filters.settings import ScoreSettings
from filters.text import caption_quality
from pipeline import images
from pipeline.engine.fingerprint import unit_interval
from pipeline.engine.schemas import CAPTION_KINDS, original_texts
from pipeline.engine.stage import Output, Row, Work
from pipeline.references import image_bytes

if TYPE_CHECKING:
    from filters.clip_bootstrap import CrossFitScorers

_RECORD_COLUMNS = ("record_id", "image_id", "image", "image_ref", "caption", "more_captions")


class ScoreWorker:
    """Scores the source's caption and the LLM's texts of each record.

    Reads: `records` with pixels, `variants`.
    Writes: `scores`, one row a text. `clip_score` only for texts that say what the picture shows.
    Rejects: nothing; `select` applies the thresholds.
    Source: Hessel et al., CLIPScore, arXiv 2104.08718, section 3, without its factor 2.5.
    """

    def __init__(self, settings: ScoreSettings, models: Mapping[str, Path]) -> None:
        self._settings = settings
        self._models = models

    @cached_property
    def _scorers(self) -> CrossFitScorers:
        """Loaded with the first picture: torch and open_clip take seconds, texts need neither."""
        from filters.clip_bootstrap import CrossFitScorers
        from pipeline.device import use_threads

        use_threads(1)
        return CrossFitScorers(self._models["clip"], self._settings.clip)

    def __call__(self, work: Work) -> Output:
        """Score one part; batches are cut inside it, so the bytes do not depend on the workers."""
        records = work.read("records", _RECORD_COLUMNS).to_pylist()
        texts = _texts_by_record(records, work.read("variants").to_pylist())
        pictures = [record for record in records if record["image_id"] is not None]
        contents = image_bytes(pictures)
        decoded = [
            images.decode(content) for _, content in zip(work.each(pictures), contents, strict=True)
        ]
        work.at(tuple(record["record_id"] for record in pictures))
        scores = {
            record["record_id"]: picture_scores(image)
            for record, image in zip(pictures, decoded, strict=True)
        }
        size = self._settings.clip.image_size
        pixels = [images.fit_square(image, size) for image in decoded]
        clip, shuffled = self._clip_scores(pictures, pixels, texts)
        rows: list[Row] = []
        for record in records:
            picture = scores.get(record["record_id"])
            for text in texts[record["record_id"]]:
                quality = caption_quality(text["text"], self._settings)
                key = (record["record_id"], text["variant_id"])
                rows.append(
                    {
                        "record_id": record["record_id"],
                        "variant_id": text["variant_id"],
                        "kind": text["kind"],
                        "short_side": picture.short_side if picture else None,
                        "entropy": picture.entropy if picture else None,
                        "caption_quality": quality.quality,
                        "caption_fault": quality.fault,
                        "clip_score": clip.get(key),
                        "clip_score_shuffled": shuffled.get(key),
                    }
                )
        return Output(rows=rows)

    def _clip_scores(
        self,
        pictures: Sequence[Mapping[str, Any]],
        pixels: Sequence[np.ndarray],
        texts: Mapping[str, Sequence[Mapping[str, Any]]],
    ) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], float]]:
        """By (record_id, variant_id): the pair's score, and the picture's with a wrong text."""
        scores: dict[tuple[str, str], float] = {}
        wrong: dict[tuple[str, str], float] = {}
        if not pictures:
            return scores, wrong
        described = [
            [text for text in texts[record["record_id"]] if text["kind"] in CAPTION_KINDS]
            for record in pictures
        ]
        for pairs, seen, spoken in self._scorers.embed_pairs(
            [record["image_id"] for record in pictures],
            pixels,
            [[text["text"] for text in each] for each in described],
        ):
            chosen = [described[index][number] for index, number in pairs]
            keys = [
                (pictures[index]["record_id"], text["variant_id"])
                for (index, _), text in zip(pairs, chosen, strict=True)
            ]
            own = (seen * spoken).sum(axis=1)
            partner = _wrong_partners(keys, [text["text"] for text in chosen])
            other = (seen * spoken[partner]).sum(axis=1)
            for row, key in enumerate(keys):
                scores[key] = float(own[row])
                if partner[row] != row:
                    wrong[key] = float(other[row])
        return scores, wrong


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
        texts[variant["record_id"]].append(
            {name: variant[name] for name in ("variant_id", "kind", "text")}
        )
    return texts


def _wrong_partners(keys: Sequence[tuple[str, str]], texts: Sequence[str]) -> list[int]:
    """For each pair, the index of a pair with another record and another text; itself if none.

    Pairs are laid in the order of a hash and each takes the next that differs, so that the choice
    is random over the corpus and the same in every run.
    """
    order = sorted(range(len(keys)), key=lambda row: unit_interval("shuffled", *keys[row]))
    partners = list(range(len(keys)))
    for place, row in enumerate(order):
        for step in range(1, len(order)):
            other = order[(place + step) % len(order)]
            if keys[other][0] != keys[row][0] and texts[other] != texts[row]:
                partners[row] = other
                break
    return partners
