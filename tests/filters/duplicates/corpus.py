"""Tables of a small corpus for the tests of the duplicates, each record as it is said to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from filters.duplicates.settings import DuplicateSettings
from filters.duplicates.step import find_duplicates
from pipeline.engine.schemas import PICTURES, RECORDS, SCORES
from pipeline.engine.stage import FitInputs
from pipeline.engine.tables import part_path, write_table

Record = Mapping[str, Any]
"""What differs from an empty record: of `records`, of `pictures`, and `clip_score`."""


def hash_at(degrees: float) -> bytes:
    """A perceptual hash; two of them are as far apart as their angles say."""
    frequencies = np.zeros(64)
    frequencies[[3, 7]] = 127 * np.cos(np.radians(degrees)), 127 * np.sin(np.radians(degrees))
    return np.rint(frequencies).astype(np.int8).tobytes()


def feature_at(degrees: float) -> list[float]:
    """A CLIP feature, likewise."""
    return [float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))]


def apart(degrees: float) -> float:
    """The distance of two vectors that are so many degrees apart."""
    return float(1 - np.cos(np.radians(degrees)))


def write_corpus(
    root: Path, parts: Sequence[Sequence[Record]], models: Mapping[str, Path] | None = None
) -> FitInputs:
    """The tables' files; a record without `image_id` is a text."""
    texts = {"source", "key", "caption", "licence", "attribution", "split", "origin"}
    lists = {"more_captions": [], "repairs": [], "opt_outs": []}
    nothing = {"width": 8, "height": 8} | dict.fromkeys(texts, "-") | lists
    seen = dict.fromkeys(("short_side", "aspect_ratio", "entropy"), 1.0)
    for number, records in enumerate(parts):
        part = f"p{number}"
        pictures = [
            {"pixel_hash": record["image_id"], **seen, **_only(PICTURES.names, record)}
            for record in records
            if "image_id" in record
        ]
        scores = [
            {
                "record_id": record["record_id"],
                "variant_id": "original",
                "kind": "original",
                "caption_quality": 1.0,
                "clip_score": record.get("clip_score"),
            }
            for record in records
        ]
        rows = [{**nothing, **_only(RECORDS.names, record)} for record in records]
        write_table(part_path(root / "records", part), rows, RECORDS)
        write_table(part_path(root / "pictures", part), pictures, PICTURES)
        write_table(part_path(root / "scores", part), scores, SCORES)
    tables = ("records", "pictures", "scores")
    return FitInputs(
        tables={table: sorted((root / table).glob("*.parquet")) for table in tables},
        models=models or {},
    )


def duplicates(inputs: FitInputs, **settings: Any) -> dict[str, dict[str, Any]]:
    """The rows that the step finds, by the record that leaves."""
    found = find_duplicates(DuplicateSettings(**settings), inputs).to_arrow_table().to_pylist()
    return {row["record_id"]: row for row in found}


def keepers(inputs: FitInputs, **settings: Any) -> dict[str, str]:
    """Which record each that leaves is a copy of."""
    rows = duplicates(inputs, **settings).items()
    return {record: row["duplicate_of"] for record, row in rows}


def _only(names: Sequence[str], record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name in names}
