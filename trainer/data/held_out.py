"""Held-out samples: always the same, each with its first caption and its condition."""

from __future__ import annotations

import numpy as np

from tokenizer_cache.manifest import Manifest
from trainer.data.assembly import RowBuilder
from trainer.data.layout import joined, lay_out
from trainer.data.order import fixed
from trainer.data.packing import Row, pack
from trainer.data.streams import numbers_of, open_files, rules_of
from trainer.settings import TrainSettings


def held_out_rows(
    settings: TrainSettings, manifest: Manifest, stream: str, num_rows: int
) -> list[Row]:
    """Rows of a stream's first held-out samples; fewer than `num_rows` where it has fewer."""
    files = open_files(settings, manifest)
    wanted = num_rows * settings.seq_len
    layouts = []
    for shard, num_samples in numbers_of(manifest, stream, "validation").items():
        if wanted <= 0:
            break
        layout = lay_out(
            files,
            rules_of(settings, manifest, stream),
            shards=np.full(num_samples, shard),
            samples=np.arange(num_samples),
            positions=np.arange(num_samples),
            choose=fixed,
        )
        before = np.cumsum(layout.documents["length"]) - layout.documents["length"]
        num = int(np.searchsorted(before, wanted))
        layouts.append(layout.part(0, num))
        wanted -= int(layouts[-1].documents["length"].sum())
    if not layouts:
        return []
    layout = joined(layouts)
    rows = pack(layout.documents["length"], seq_len=settings.seq_len)[:num_rows]
    return RowBuilder(settings, files, manifest.vocabulary).build(layout, rows)
