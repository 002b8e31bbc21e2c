"""Held-out samples: always the same, each with its first task and caption and its condition."""

from __future__ import annotations

import numpy as np

from tokenizer_cache.manifest import Manifest
from trainer.data.documents import Document
from trainer.data.packing import Row, pack
from trainer.data.rows import RowBuilder
from trainer.data.streams import document_maker, numbers_of, open_files
from trainer.data.tasks import fixed
from trainer.settings import TrainSettings


def held_out_rows(
    settings: TrainSettings, manifest: Manifest, stream: str, num_rows: int
) -> list[Row]:
    """Rows of a stream's first held-out samples; fewer than `num_rows` where it has fewer."""
    files = open_files(settings, manifest)
    builder = RowBuilder(settings, files, manifest.vocabulary)
    make = document_maker(settings, files, manifest.vocabulary, stream, builder.writer)
    found = (
        document
        for shard, num_samples in numbers_of(manifest, stream, "validation").items()
        for number in range(num_samples)
        for document in make(shard, number, fixed)
    )
    documents: list[Document] = []
    wanted = num_rows * settings.seq_len
    while wanted > 0 and (document := next(found, None)):
        documents.append(document)
        wanted -= document.length
    lengths = np.array([document.length for document in documents], np.int64)
    rows = pack(lengths, seq_len=settings.seq_len)[:num_rows]
    return builder.build([[documents[number] for number in row.tolist()] for row in rows])
