"""Calibration: how well the CLIP score tells true pairs from wrong ones, and where to cut.

Wrong pairs are the corpus's pictures with other records' captions (`clip_score_shuffled`) and,
where the synthesis wrote some, the hard negatives (kind `negative`), each beside the true caption
of its own record. Captions of a dirty corpus are not all true: where a share w of them is wrong,
the AUC that is told here is w/2 + (1 - w) times that of the pairs that are right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from duckdb import DuckDBPyConnection

from pipeline.engine.corpus import Corpus
from pipeline.engine.schemas import CAPTION_KINDS, ORIGINAL
from pipeline.engine.storage import read_json

CALIBRATION_FILE = "calibration.json"
"""In the folder of the model `cuts`."""

WEAK_AUC = 0.7
"""A scorer whose AUC may be below is too weak to filter by. Ours: at 0.7 a cut that lets 5 % of the
wrong pairs pass leaves out four of five true ones, where scores are spread normally."""

_Z = 1.96
"""Standard errors on each side of a 95 % interval."""
_NUM_BINS = 40
_PAIRS = f"""(
    FROM scores
    WHERE kind IN {CAPTION_KINDS} AND clip_score IS NOT NULL AND clip_score_shuffled IS NOT NULL
)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval; None where there are too few values to say."""

    value: float | None
    low: float | None = None
    high: float | None = None


def calibrate(connection: DuckDBPyConnection, false_accept: float) -> dict[str, Any]:
    """The calibration of the CLIP score over the tables `scores` and `variants`, as JSON.

    Args:
        connection: has both tables.
        false_accept: the share of wrong pairs that may pass the suggested cut.

    Returns:
        `num_pairs`; `auc` and `cut` with their intervals (`low`, `high`); `is_weak`;
        `false_accept`; `true_accept`, the share of the true pairs that pass the cut; in `negatives`
        by form their number, their `auc` and the share that passes the cut; and, over common
        `edges`, the histograms `counts` of `true`, `shuffled` and `negative` pairs.
    """
    pairs = connection.sql(
        f"SELECT clip_score, clip_score_shuffled, hash(record_id) AS record FROM {_PAIRS}"
    ).fetchnumpy()
    true, shuffled, records = map(np.asarray, pairs.values())
    if not len(true):
        return {"num_pairs": 0, "false_accept": false_accept}
    area = auc(true, shuffled, records, records)
    cut = false_accept_cut(shuffled, false_accept)
    negatives = _negatives(connection)
    values = {"true": true, "shuffled": shuffled, "negative": negatives["score"]}
    every = np.concatenate(list(values.values()))
    edges = np.linspace(every.min(), every.max() + 1e-6, _NUM_BINS + 1)
    return {
        "num_pairs": len(true),
        "auc": asdict(area),
        "is_weak": area.low is None or area.low < WEAK_AUC,
        "false_accept": false_accept,
        "cut": asdict(cut),
        "true_accept": _share_from(true, cut),
        "negatives": {
            str(form): _describe_negatives(negatives, form, cut)
            for form in np.unique(negatives["form"])
        },
        "edges": edges.tolist(),
        "counts": {name: np.histogram(found, edges)[0].tolist() for name, found in values.items()},
    }


def shuffled_scores(connection: DuckDBPyConnection) -> np.ndarray:
    """The scores of the shuffled pairs: (n,) float32."""
    found = connection.sql(f"SELECT clip_score_shuffled AS score FROM {_PAIRS}").fetchnumpy()
    return np.asarray(found["score"])


def auc(
    true: np.ndarray, wrong: np.ndarray, true_records: np.ndarray, wrong_records: np.ndarray
) -> Estimate:
    """The chance that a true pair scores above a wrong one, ties half.

    The interval allows for pairs of one record, which go together: Obuchowski, Nonparametric
    Analysis of Clustered ROC Curve Data, Biometrics 53 (1997), section 3, which is DeLong's where
    each record has one pair.

    Args:
        true: (n,) scores.
        wrong: (m,) scores.
        true_records: (n,) the record of each true pair.
        wrong_records: (m,) the record of each wrong pair.
    """
    if not len(true) or not len(wrong):
        return Estimate(value=None)
    of_true = _share_below(true, wrong)  # (n,)
    of_wrong = 1 - _share_below(wrong, true)  # (m,)
    value = float(of_true.mean())
    names, places = np.unique(np.concatenate([true_records, wrong_records]), return_inverse=True)
    if len(names) < 2:
        return Estimate(value=value)
    pulls = np.concatenate([(of_true - value) / len(true), (of_wrong - value) / len(wrong)])
    by_record = np.bincount(places, weights=pulls)
    error = math.sqrt(len(names) / (len(names) - 1) * float((by_record**2).sum()))
    return Estimate(
        value=value, low=max(0.0, value - _Z * error), high=min(1.0, value + _Z * error)
    )


def false_accept_cut(wrong: np.ndarray, rate: float) -> Estimate:
    """The lowest cut that a new wrong pair reaches with a chance of at most `rate`.

    The cut is the order statistic that split conformal prediction takes (Lei et al.,
    Distribution-Free Predictive Inference, arXiv 1604.04173, section 2.2). Its interval are the
    order statistics between which the quantile lies (Conover, Practical Nonparametric Statistics,
    1999, section 3.2, with the normal approximation).

    Args:
        wrong: (n,) scores of wrong pairs.
        rate: the share of them that may pass.
    """
    ordered = np.sort(wrong)
    num, share = len(ordered), 1 - rate
    around = _Z * math.sqrt(num * share * rate)

    def at(rank: float) -> float | None:
        """The score of a rank from 1; None past the ends."""
        place = math.ceil(rank - 1e-9)
        return float(ordered[place - 1]) if 1 <= place <= num else None

    return Estimate(
        value=at((num + 1) * share),
        low=at(num * share - around),
        high=at(num * share + around + 1),
    )


def read_calibration(corpus: Corpus) -> dict[str, Any] | None:
    """What `calibrate` found in a corpus; None without pairs, or before it is fitted."""
    folder = corpus.models.get("cuts")
    if folder is None or not (folder / CALIBRATION_FILE).exists():
        return None
    found: dict[str, Any] = read_json(folder / CALIBRATION_FILE)
    return found if found["num_pairs"] else None


def describe(found: Mapping[str, Any]) -> str:
    """What `calibrate` found, as a sentence without its end."""
    cut, rate = found["cut"], f"{100 * found['false_accept']:.3g} %"
    told = f"clip_score {describe_auc(found)}"
    if cut["value"] is None:
        return f"{told}; these are too few for a cut that lets {rate} of the shuffled pairs pass"
    passing = (
        f"{rate} of the shuffled pairs pass and {100 * found['true_accept']:.1f} % of the true"
    )
    return f"{told}; a cut at {cut['value']:.3f}{_interval(cut)} lets {passing} ones"


def describe_auc(found: Mapping[str, Any]) -> str:
    """The AUC with its interval, as what the score does."""
    return (
        f"tells true pairs from shuffled ones with an AUC of {found['auc']['value']:.3f}"
        f"{_interval(found['auc'])} on {found['num_pairs']:,} pairs"
    )


def _interval(found: Mapping[str, float | None]) -> str:
    if found["low"] is None or found["high"] is None:
        return ""
    return f" (95 % interval {found['low']:.3f} to {found['high']:.3f})"


def _negatives(connection: DuckDBPyConnection) -> dict[str, np.ndarray]:
    """The hard negatives: `form`, `score`, `record`, and `own`, the score of the true caption."""
    found = connection.sql(
        f"""
        SELECT form, scores.clip_score AS score, own.clip_score AS own,
            hash(scores.record_id) AS record
        FROM scores JOIN variants USING (record_id, variant_id)
        JOIN scores own ON own.record_id = scores.record_id AND own.variant_id = '{ORIGINAL}'
        WHERE scores.kind = 'negative' AND scores.clip_score IS NOT NULL
            AND own.clip_score IS NOT NULL
        """
    ).fetchnumpy()
    return {name: np.asarray(values) for name, values in found.items()}


def _describe_negatives(
    negatives: Mapping[str, np.ndarray], form: str, cut: Estimate
) -> dict[str, Any]:
    own, score, record = (
        negatives[name][negatives["form"] == form] for name in ("own", "score", "record")
    )
    return {
        "num_texts": len(score),
        "auc": asdict(auc(own, score, record, record)),
        "accepted": _share_from(score, cut),
    }


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each value the share of the others that lie below it, ties half: (n,) float64."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, values, side="left")
    up_to = np.searchsorted(ordered, values, side="right")
    return (below + up_to) / 2 / len(others)


def _share_from(values: np.ndarray, cut: Estimate) -> float | None:
    return None if cut.value is None else float((values >= cut.value).mean())
