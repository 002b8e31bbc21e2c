"""Captions that many images share: what a site writes under each of its pictures.

They are counted once over the corpus and pinned, so that a new part does not score the others anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipeline.engine.fingerprint import hash_bytes
from pipeline.engine.stage import FitInputs, Progress
from pipeline.engine.tables import connect, read_table, write_table
from pipeline.settings import Settings

CAPTIONS_FILE = "captions.parquet"
_MAX_CAPTIONS = 1_000_000
"""The commonest that are kept: every worker holds them, at about 200 bytes each."""

_CAPTIONS = pa.schema(
    [
        pa.field("caption_id", pa.string(), nullable=False),  # SHA-256 of the text
        pa.field("num_images", pa.int32(), nullable=False),
    ]
)


class SharedCaptions:
    """How many images of the corpus have a caption."""

    def __init__(self, folder: Path) -> None:
        table = read_table(folder / CAPTIONS_FILE)
        ids, counts = (table[name].to_pylist() for name in _CAPTIONS.names)
        self._counts: dict[str, int] = dict(zip(ids, counts, strict=True))

    def count(self, text: str) -> int:
        """The images that had just this caption when they were counted, at least 1."""
        return self._counts.get(hash_bytes(text.encode()), 1)


def fit(settings: Settings, inputs: FitInputs, folder: Path) -> Iterator[Progress]:  # noqa: ARG001
    """Count the sources' captions; writes `captions.parquet`, which holds no text."""
    counted = connect({"records": inputs.tables["records"]}).sql(
        f"""
        WITH texts AS (
            SELECT image_id, unnest(
                list_prepend(caption, list_transform(more_captions, lambda more: more.text))
            ) AS text
            FROM records WHERE image_id IS NOT NULL
        )
        SELECT sha256(text) AS caption_id, count(DISTINCT image_id)::INTEGER AS num_images
        FROM texts GROUP BY text HAVING num_images > 1
        ORDER BY num_images DESC, caption_id LIMIT {_MAX_CAPTIONS}
        """
    )
    table = counted.to_arrow_table()
    write_table(folder / CAPTIONS_FILE, table, _CAPTIONS)
    yield Progress(done=1, total=1, figures={"captions": len(table)})
