"""The stage that selects: one part at a time, by the SQL of `outcome`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb

from pipeline.engine.stage import Output, Work
from pipeline.selection.cuts import read_cuts
from pipeline.selection.outcome import REJECTED, SELECTED, decide
from pipeline.selection.settings import TABLE_OF, SelectSettings


class SelectWorker:
    """Applies the rules to each text, and gives each record that keeps a caption its stream.

    The pieces of an interleaved document go into the mixed stream together, and so do the records
    that a text of the LLM leads from and to. What it wrote about a subject goes into the text
    stream.

    Reads: `records` without pixels, `variants` without texts, `scores`, `pictures`, `refusals`,
        `duplicates`.
    Writes: `selection`, one row a text that stays.
    Rejects: `SCORE-below-threshold`, `SCORE-above-threshold`, `SCORE-below-top` (with `-` for `_`)
        and `no-alternative-met` for a text, or for the whole record (variant_id null) when its own
        caption failed and no other is left; the reasons of `refusals`;
        `duplicate-image`, `duplicate-text`, `duplicate-sound`,
        `duplicate-pixels`, `duplicate-perceptual`, `duplicate-semantic` and
        `duplicate-evaluation` for a record;
        `bridge-without-end` for a text that leads to a record that is left out, or is in another
        split.
    Source: thresholds on stored scores as in DataComp, arXiv 2304.14108, section 3.4.
    """

    def __init__(self, settings: SelectSettings, models: Mapping[str, Path]) -> None:
        self._settings = settings
        self._cuts = read_cuts(models["cuts"])
        self._connection = duckdb.connect(config={"threads": 1})  # for all parts: 10 ms to open

    def __call__(self, work: Work) -> Output:
        """Decide one part."""
        connection = self._connection
        for table, columns in _columns(self._settings).items():
            rows = work.read(table, columns)
            connection.register(f"{table}_of_part", rows)
            connection.execute(
                f"CREATE OR REPLACE VIEW {table} AS SELECT '' AS part, * FROM {table}_of_part"
            )
        decide(connection, self._settings, self._cuts)
        return Output(
            rows=connection.sql(SELECTED).to_arrow_table(),
            rejects=connection.sql(REJECTED).to_arrow_table(),
        )


def _columns(settings: SelectSettings) -> dict[str, list[str]]:
    """The tables that a selection reads, and their columns that it needs."""
    scored = [name for name in TABLE_OF if name in settings.scores()]
    tables = {
        "records": ["record_id", "image_id", "sound_id", "source", "document", "split"],
        "variants": ["record_id", "variant_id", "style", "next_id"],
        "scores": ["record_id", "variant_id", "kind", "caption_fault"],
        "pictures": ["record_id"],
        "refusals": ["record_id", "variant_id", "reason", "detail"],
        "duplicates": ["record_id", "duplicate_of", "method", "distance", "threshold"],
    }
    for name in scored:
        tables[TABLE_OF[name]].append(name)
    return tables
