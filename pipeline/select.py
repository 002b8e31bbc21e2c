"""Selection: which text of which record goes into which stream, by thresholds on stored scores.

Nothing is scored here. A rule names a column of `scores` or `pictures` and either a number or a
quantile; quantiles become numbers once (`fit_cuts`) and stay, so that new data does not move them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from pipeline.engine.fingerprint import unit_interval
from pipeline.engine.schemas import CAPTION_KINDS, ORIGINAL, reject
from pipeline.engine.stage import FitInputs, Output, Progress, Row, Work
from pipeline.engine.storage import commit_json, read_json
from pipeline.engine.tables import connect
from pipeline.settings import Settings

CUTS_FILE = "cuts.json"
CALIBRATION_FILE = "calibration.json"
_NUM_BINS = 40
SCORED = "scores LEFT JOIN pictures USING (record_id)"
"""Every text with its own scores and those of its picture."""
_PICTURE_SCORES = ("record_id", "short_side", "entropy")
_RECORD_COLUMNS = ("record_id", "image_id", "document", "split")

Score = Literal["short_side", "entropy", "caption_quality", "clip_score"]


class Rule(Settings):
    """What a score must be for a text to stay; a score that does not apply (null) passes."""

    min: float | None = None
    """Smallest score that stays, in the score's own unit."""
    max: float | None = None
    """Largest score that stays."""
    quantile: float | None = Field(default=None, gt=0, lt=1)
    """Share of the captions to leave out from below, turned into a number once."""

    @model_validator(mode="after")
    def _says_something(self) -> Rule:
        if self.min is None and self.max is None and self.quantile is None:
            message = "a rule needs min, max or quantile"
            raise ValueError(message)
        if self.min is not None and self.quantile is not None:
            message = "min and quantile both set the lower limit: keep one"
            raise ValueError(message)
        return self


class SelectSettings(Settings):
    """What stays, and where it goes."""

    rules: dict[Score, Rule] = Field(default_factory=dict)
    """By score, in the order in which they are tried; the first that fails gives the reason."""
    drop_duplicates: bool = True
    """Leave out all but one of records with equal content."""
    mixed_share: float = Field(default=1 / 3, ge=0, le=1)
    """Share of the image records for the mixed stream; 1/3 follows from image:mixed = 2:1. Records
    that the LLM has bridged come first, and may be more."""
    keep_original: float = Field(default=0.2, ge=0, le=1)
    """How often a reader takes a record's own caption where it has captions of an LLM, too.
    Default: the best mix in Betker et al., Improving Image Generation with Better Captions (2023),
    section 3.4 and Nguyen et al., arXiv 2307.10350, keeps a part of the original ones."""


class CutsSettings(Settings):
    """The quantiles that have to be turned into numbers."""

    quantiles: dict[Score, float]


def cuts_settings(settings: SelectSettings) -> CutsSettings:
    """The part of the selection that decides the cuts."""
    rules = settings.rules.items()
    return CutsSettings(quantiles={s: r.quantile for s, r in rules if r.quantile is not None})


def fit_cuts(settings: CutsSettings, inputs: FitInputs, folder: Path) -> Iterator[Progress]:
    """Turn quantiles over the captions' scores into numbers, and calibrate the CLIP score.

    Writes `cuts.json` (score -> number) and `calibration.json`: histograms of true and shuffled
    pairs' scores, and the AUC between them.
    """
    connection = connect({name: inputs.tables[name] for name in ("scores", "pictures")})
    captions = connection.sql(f"FROM {SCORED} WHERE kind IN {CAPTION_KINDS}")
    cuts = {
        score: captions.aggregate(f"quantile_cont({score}, {quantile})").fetchall()[0][0]
        for score, quantile in settings.quantiles.items()
    }
    commit_json(folder / CUTS_FILE, {score: cut for score, cut in cuts.items() if cut is not None})
    pairs = captions.filter("clip_score IS NOT NULL AND clip_score_shuffled IS NOT NULL")
    columns = pairs.project("clip_score, clip_score_shuffled").fetchnumpy()
    commit_json(
        folder / CALIBRATION_FILE,
        calibrate(np.asarray(columns["clip_score"]), np.asarray(columns["clip_score_shuffled"])),
    )
    yield Progress(done=1, total=1)


def calibrate(true: np.ndarray, shuffled: np.ndarray) -> dict[str, Any]:
    """How well a score tells true pairs from shuffled ones.

    Args:
        true: (n,) scores of pairs as they are.
        shuffled: (n,) scores of the same pictures with wrong texts.

    Returns:
        JSON: `auc` (the chance that a true pair scores above a shuffled one, ties half; Hanley and
        McNeil 1982), `num_pairs`, and histograms over common `edges`.
    """
    if len(true) == 0:
        return {"num_pairs": 0, "auc": None, "edges": [], "true": [], "shuffled": []}
    ordered = np.sort(shuffled)
    below = np.searchsorted(ordered, true, side="left")
    up_to = np.searchsorted(ordered, true, side="right")
    both = np.concatenate([true, shuffled])
    edges = np.linspace(both.min(), both.max() + 1e-6, _NUM_BINS + 1)
    return {
        "num_pairs": len(true),
        "auc": float((below + up_to).mean() / 2 / len(shuffled)),
        "edges": edges.tolist(),
        "true": np.histogram(true, edges)[0].tolist(),
        "shuffled": np.histogram(shuffled, edges)[0].tolist(),
    }


class SelectWorker:
    """Applies the rules to each text, and gives each record that keeps a caption its stream.

    The pieces of an interleaved document go into the mixed stream together, and so do the records
    that a text of the LLM leads from and to. What it wrote about a subject goes into the text
    stream.

    Reads: `records` without pixels, `variants` without texts, `scores`, `pictures`,
        `duplicates`.
    Writes: `selection`, one row a text that stays.
    Rejects: `SCORE-below-threshold`, `SCORE-above-threshold` (with `-` for `_`) for a text, or for
        the whole record (variant_id null) when its own caption failed and no other is left;
        `duplicate-image`, `duplicate-text` for a record; `bridge-without-end` for a text that leads
        to a record that is left out, or is in another split.
    Source: thresholds on stored scores as in DataComp, arXiv 2304.14108, section 3.4.
    """

    def __init__(self, settings: SelectSettings, models: Mapping[str, Path]) -> None:
        self._settings = settings
        cuts: dict[str, float] = read_json(models["cuts"] / CUTS_FILE)
        self._limits = {
            score: (cuts.get(score) if rule.quantile is not None else rule.min, rule.max)
            for score, rule in settings.rules.items()
        }

    def __call__(self, work: Work) -> Output:
        """Decide one part."""
        records = work.read("records", _RECORD_COLUMNS).to_pylist()
        duplicates = {}
        if self._settings.drop_duplicates:
            rows = work.read("duplicates").to_pylist()
            duplicates = {row["record_id"]: row["duplicate_of"] for row in rows}
        pictures = {
            row["record_id"]: row for row in work.read("pictures", _PICTURE_SCORES).to_pylist()
        }
        unmeasured = dict.fromkeys(_PICTURE_SCORES)
        texts: dict[str, list[Mapping[str, Any]]] = {}
        for score in work.read("scores").to_pylist():
            picture = pictures.get(score["record_id"], unmeasured)
            texts.setdefault(score["record_id"], []).append({**picture, **score})
        kept: list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]] = []
        rejects: list[Row] = []
        for record in records:
            keeper = duplicates.get(record["record_id"])
            if record["record_id"] not in texts:
                continue  # in quarantine: `measure` or `score` has rejected it
            if keeper is not None:
                rejects.append(_duplicate(record, keeper))
            else:
                good, refused = self._decide(texts[record["record_id"]])
                kept.append((record, good))
                rejects += refused
        bridges = _bridges(kept, work.read("variants", ["variant_id", "next_id"]).to_pylist())
        streams = self._streams([record for record, good in kept if good], bridges)
        selected: list[Row] = []
        for record, good in kept:
            weights = _weights(good, self._settings.keep_original)
            for text in good:
                if text["kind"] == "interleave" and text["variant_id"] not in bridges:
                    rejects.append(_without_end(text))
                    continue
                is_prose = text["kind"] == "text"
                selected.append(
                    {
                        "record_id": record["record_id"],
                        "variant_id": text["variant_id"],
                        "kind": text["kind"],
                        "stream": "text" if is_prose else streams[record["record_id"]],
                        "split": record["split"],
                        "weight": weights.get(text["variant_id"]),
                    }
                )
        return Output(rows=selected, rejects=rejects)

    def _decide(
        self, texts: Sequence[Mapping[str, Any]]
    ) -> tuple[list[Mapping[str, Any]], list[Row]]:
        """The texts that a record keeps, and the rejects of what it loses."""
        refused = {text["variant_id"]: self._fault(text) for text in texts}
        good = [text for text in texts if refused[text["variant_id"]] is None]
        if not any(text["kind"] in CAPTION_KINDS for text in good):
            return [], [{**(refused[ORIGINAL] or {}), "variant_id": None}]
        return good, [row for row in refused.values() if row is not None]

    def _streams(
        self, records: Sequence[Mapping[str, Any]], bridges: Mapping[str, tuple[str, str]]
    ) -> dict[str, str]:
        """The stream of each record that is kept."""
        pictures = [record for record in records if record["image_id"] is not None]
        # A document of which no picture is left is so many texts.
        illustrated = {record["document"] for record in pictures} - {None}
        single = {record["record_id"] for record in pictures if record["document"] is None}
        bridged = {end for ends in bridges.values() for end in ends}
        left = self._settings.mixed_share * len(single) - len(bridged)
        share = max(0.0, left) / max(1, len(single) - len(bridged))
        streams = {}
        for record in records:
            record_id = record["record_id"]
            if record_id in single:
                is_mixed = record_id in bridged or unit_interval("stream", record_id) < share
                streams[record_id] = "mixed" if is_mixed else "image"
            else:
                streams[record_id] = "mixed" if record["document"] in illustrated else "text"
        return streams

    def _fault(self, text: Mapping[str, Any]) -> Row | None:
        """The reject of a text by the first rule that it fails, or None."""
        for score, (lower, upper) in self._limits.items():
            value = text[score]
            if value is None:
                continue
            for limit, side, failed in (
                (lower, "below", lower is not None and value < lower),
                (upper, "above", upper is not None and value > upper),
            ):
                if failed:
                    return reject(
                        record_id=text["record_id"],
                        variant_id=text["variant_id"],
                        stage="select",
                        reason=f"{score.replace('_', '-')}-{side}-threshold",
                        detail=text["caption_fault"] if score == "caption_quality" else None,
                        score=value,
                        threshold=limit,
                    )
        return None


def _bridges(
    kept: Sequence[tuple[Mapping[str, Any], list[Mapping[str, Any]]]],
    variants: Sequence[Mapping[str, Any]],
) -> dict[str, tuple[str, str]]:
    """The records that a text leads from and to, by its id, where both are there for a document."""
    nexts = {row["variant_id"]: row["next_id"] for row in variants if row["next_id"] is not None}
    places = {
        record["record_id"]: record["split"]
        for record, good in kept
        if good and record["image_id"] is not None and record["document"] is None
    }
    found = {}
    for record, good in kept:
        for text in good:
            ends = (record["record_id"], nexts.get(text["variant_id"], ""))
            if all(end in places for end in ends) and places[ends[0]] == places[ends[1]]:
                found[text["variant_id"]] = ends
    return found


def _weights(texts: Sequence[Mapping[str, Any]], keep_original: float) -> dict[str, float]:
    """How often each caption of a record is taken, by its id."""
    own = [text["variant_id"] for text in texts if text["kind"] == "original"]
    rewritten = [text["variant_id"] for text in texts if text["kind"] == "caption"]
    of_own = keep_original if own and rewritten else float(bool(own))
    weights = {variant_id: of_own / len(own) for variant_id in own}
    return weights | {variant_id: (1 - of_own) / len(rewritten) for variant_id in rewritten}


def _without_end(text: Mapping[str, Any]) -> Row:
    return reject(
        record_id=text["record_id"],
        variant_id=text["variant_id"],
        stage="select",
        reason="bridge-without-end",
        detail="the record that it leads to is left out, or is in another split",
    )


def _duplicate(record: Mapping[str, Any], keeper: str) -> Row:
    kind = "text" if record["image_id"] is None else "image"
    return reject(
        record_id=record["record_id"],
        stage="select",
        reason=f"duplicate-{kind}",
        detail=f"the same content as record {keeper}, which stays",
    )
