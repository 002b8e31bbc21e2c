"""Parts of a corpus for the selection, from a few words about each record and text."""

import pyarrow as pa

from pipeline.engine.schemas import DUPLICATES, PICTURES, RECORDS, REFUSALS, SCORES, VARIANTS
from pipeline.engine.stage import FitInputs, Output, Work
from pipeline.engine.tables import write_table
from pipeline.selection.cuts import cuts_settings
from pipeline.selection.fit import fit_cuts
from pipeline.selection.settings import SelectSettings
from pipeline.selection.worker import SelectWorker

TABLES = {
    "records": RECORDS,
    "variants": VARIANTS,
    "scores": SCORES,
    "pictures": PICTURES,
    "refusals": REFUSALS,
    "duplicates": DUPLICATES,
}
EQUAL = {"method": "bytes", "distance": 0.0, "threshold": 0.0, "rule": "record-id"}
"""How a row of `duplicates` was found, where a test does not say."""

_BLANK_VARIANT = dict.fromkeys(VARIANTS.names, "x") | {
    name: 1 for name in VARIANTS.names if not pa.types.is_string(VARIANTS.field(name).type)
}


def record(record_id, *, image_id="i", sound_id=None, split="train", document=None, source="s"):
    row = dict.fromkeys(RECORDS.names, "x") | {"image": None, "width": 1, "height": 1}
    row |= {"more_captions": [], "repairs": [], "opt_outs": [], "position": None}
    row |= {"sound": None, "sampling_rate": None, "duration_s": None, "sound_id": sound_id}
    ids = {"record_id": record_id, "image_id": image_id, "document": document}
    return row | ids | {"split": split, "source": source}


def picture(record_id, **columns):
    row = dict.fromkeys(PICTURES.names) | {"image_id": "i", "pixel_hash": "p"}
    row |= {"short_side": 64.0, "aspect_ratio": 1.0, "entropy": 4.0}
    return row | {"record_id": record_id} | columns


def score(record_id, variant_id="original", kind="original", **columns):
    return {
        **dict.fromkeys(SCORES.names),
        "record_id": record_id,
        "variant_id": variant_id,
        "kind": kind,
        "caption_quality": 1.0,
        **columns,
    }


def variants(scores, *, nexts, styles):
    """The rows of `variants` that belong to some scores."""
    return [
        _BLANK_VARIANT
        | {name: row[name] for name in ("record_id", "variant_id", "kind")}
        | {"next_id": nexts.get(row["variant_id"]), "style": styles.get(row["variant_id"])}
        for row in scores
        if row["kind"] != "original"
    ]


def write_part(
    folder, part, records, scores, *, pictures=(), refusals=(), duplicates=(), nexts=None,
    styles=None,
):  # fmt: skip
    """Write the tables of a part and return their files."""
    rows = {
        "records": records,
        "variants": variants(scores, nexts=nexts or {}, styles=styles or {}),
        "scores": scores,
        "pictures": list(pictures),
        "refusals": list(refusals),
        "duplicates": [EQUAL | row for row in duplicates],
    }
    files = {table: folder / table / f"{part}.parquet" for table in TABLES}
    for table, path in files.items():
        write_table(path, rows[table], TABLES[table])
    return files


def fit(folder, settings):
    """Fit the cuts of a selection over all parts that were written."""
    tables = {table: sorted((folder / table).glob("*.parquet")) for table in TABLES}
    (folder / "cuts").mkdir(exist_ok=True)
    list(fit_cuts(cuts_settings(settings), FitInputs(tables=tables, models={}), folder / "cuts"))


def decide(folder, settings, files):
    """The selection's rows and rejects of a part, by the cuts that were fitted."""
    output = SelectWorker(settings, {"cuts": folder / "cuts"})(Work(part="p", inputs=files))
    return Output(rows=output.rows.to_pylist(), rejects=output.rejects.to_pylist())


def select(
    folder, records, scores, *, pictures=(), refusals=(), duplicates=(), nexts=None, styles=None,
    **rules,
):  # fmt: skip
    """The selection's rows and rejects of one part, which is the whole corpus."""
    settings = SelectSettings(**rules)
    files = write_part(
        folder, "p", records, scores,
        pictures=pictures, refusals=refusals, duplicates=duplicates, nexts=nexts, styles=styles,
    )  # fmt: skip
    fit(folder, settings)
    return decide(folder, settings, files)
