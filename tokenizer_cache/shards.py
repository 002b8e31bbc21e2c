"""From the selection to WebDataset shards of a part, a stream and a split each.

A shard is a plain tar that stock `webdataset` and `datasets` read. Its samples are

- text:  `KEY.json` `KEY.txt`; a text of an LLM about a record's subject has the key RECORD-VARIANT
- image: `KEY.codes.npy` (h, w) `KEY.json`, and the picture as `KEY.webp` or `KEY.jpg` if wanted;
  with `tokenize.crops` the codes are (v, h, w), the picture's own before those of its crops, and
  `boxes` of the JSON says which square each is
- mixed: `KEY.codes.npy` (n, h, w) `KEY.json`, an interleaved document in which
  each image is followed by its captions: a source's own document, with its texts that have no
  image; a chain of records with a text of an LLM between two; or a few records put together.
- audio: `KEY.audio.npy` (n, q) `KEY.json`, a sound as n frames of q codes

Two members a sample: each costs a tar 512 bytes and its last half block. The texts that describe
the picture are objects of `KEY.json`; styles and negatives are its string `variants`, a line of
JSON for each, so that no reader takes one for a caption. `datasets` infers types from the first
five samples: a list of objects that is empty in these five and filled later would end its load
with a TypeError.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engine.machine_cache import local_copy
from pipeline.engine.stage import Output, Row, Work
from pipeline.engine.storage import to_path
from tokenizer_cache.manifest import shard_name
from tokenizer_cache.publishing import staged_folder
from tokenizer_cache.sample_files import to_json, to_lines, to_npy
from tokenizer_cache.selected_records import (
    SelectedRecord,
    selected_records,
    with_pictures,
    without_loose_bridges,
)
from tokenizer_cache.settings import ShardSettings
from tokenizer_cache.shard_writing import size_in_tar, tar_size, write_shard
from tokenizer_cache.text import describe_text, load_text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    """One sample.

    Attributes:
        key: its key in the shard.
        record_ids: its records, in order.
        variant_ids: its texts, as `record_id/variant_id`.
        files: its files by extension.
    """

    key: str
    record_ids: Sequence[str]
    variant_ids: Sequence[str]
    files: Mapping[str, bytes]


class ShardWorker:
    """Writes the shards of one part.

    Reads: `selection`, `records`, `variants`, `scores`, `tokens`, `audio_tokens` where there are
        sounds; the model `text`; from `work.extra` the `folder` of the shards.
    Writes: the tars and their indexes where they wait to be published, and one row of `samples`
        per sample.
    Rejects: `bridge-without-end` for a text that leads to a record without codes. The record
        itself is left out: `tokenize` has rejected it. One without text is a fault of the program.
    Source: WebDataset (github.com/webdataset/webdataset).
    """

    def __init__(self, settings: ShardSettings, models: Mapping[str, Path]) -> None:
        self.settings = settings
        folder = local_copy(models["text"])
        self._text, self._tokenizer = load_text(folder), describe_text(folder).fingerprint

    def __call__(self, work: Work) -> Output:
        """Write the part's shards; the same work gives the same bytes."""
        folder = staged_folder(to_path(work.extra["folder"]), work.part, work.fingerprint)
        records: dict[tuple[str, str], list[SelectedRecord]] = defaultdict(list)
        samples: dict[tuple[str, str], list[_Document]] = defaultdict(list)
        selected, rejects = without_loose_bridges(list(selected_records(work)))
        if self.settings.pictures is not None:
            selected = with_pictures(selected, work, self.settings.pictures)
        for record in selected:
            records[record.stream, record.split].append(record)
        for (stream, split), own in sorted(records.items()):
            samples[stream, split] += _documents(stream, own, self.settings.records_per_document)
            samples["text", split] += [
                _prose(record, text) for record in own for text in record.prose
            ]
        rows: list[Row] = []
        for (stream, split), documents in sorted(samples.items()):
            for number, held in enumerate(self._cut(documents)):
                path = folder / shard_name(stream, split, number)
                files = {each.key: each.files for each in held}
                shard = write_shard(path, files, self._text, self._tokenizer)
                rows += [_sample_row(each, stream, split) | shard for each in held]
        return Output(rows=rows, rejects=rejects)

    def _cut(self, documents: Sequence[_Document]) -> Iterator[list[_Document]]:
        """The samples of each shard, as many as it may have."""
        held: list[_Document] = []
        size = 0
        for document in documents:
            more = size_in_tar(document.files)
            is_full = len(held) == self.settings.max_samples
            if held and (is_full or tar_size(size + more) > self.settings.max_mb * 1e6):
                yield held
                held, size = [], 0
            held.append(document)
            size += more
        if held:
            yield held


def _documents(
    stream: str, records: Sequence[SelectedRecord], records_per_document: int
) -> list[_Document]:
    """The samples of one stream and split, in the order of the records."""
    for record in records:
        if not record.captions:
            message = f"record {record.id} is selected without a caption"
            raise ValueError(message)
    match stream:
        case "text":
            return [_document([each], _text_files(each)) for each in records]
        case "image" | "audio":
            return [_document([each], _pair_files(each)) for each in records]
        case "mixed":
            groups = _mixed_groups(records, records_per_document)
            return [_document(each, _mixed_files(each)) for each in groups]
    message = f"no stream is called {stream}"
    raise ValueError(message)


def _document(records: Sequence[SelectedRecord], files: Mapping[str, bytes]) -> _Document:
    """A sample of some records, named by the first one."""
    texts = [
        (record.id, text)
        for record in records
        for text in (*record.captions, *record.variants, *filter(None, [record.bridge]))
    ]
    return _Document(
        key=records[0].id,
        record_ids=[record.id for record in records],
        variant_ids=[f"{record_id}/{text['variant_id']}" for record_id, text in texts],
        files=files,
    )


def _prose(record: SelectedRecord, text: Mapping[str, Any]) -> _Document:
    """A sample of the text stream about the subject of a record, which is a sample elsewhere."""
    return _Document(
        key=f"{record.id}-{text['variant_id']}",
        record_ids=[],
        variant_ids=[f"{record.id}/{text['variant_id']}"],
        files={"txt": text["text"].encode(), "json": _text_json(record, text)},
    )


def _mixed_groups(
    records: Sequence[SelectedRecord], records_per_document: int
) -> list[list[SelectedRecord]]:
    """Chains of bridged records, single ones a few at a time, then each of the source's documents.

    Each is in its own order.
    """
    by_id = {record.id: record for record in records}
    nexts = {record.id: record.bridge["next_id"] for record in records if record.bridge}
    chains = []
    for record in records:
        if record.id in nexts and record.id not in nexts.values():
            chain = [record.id]
            while chain[-1] in nexts:
                chain.append(nexts[chain[-1]])
            chains.append([by_id[each] for each in chain])
    chained = {record.id for chain in chains for record in chain}
    single = [
        record for record in records if record.row["document"] is None and record.id not in chained
    ]
    starts = range(0, len(single), records_per_document)
    documents: dict[str, list[SelectedRecord]] = defaultdict(list)
    for record in records:
        if record.row["document"] is not None:
            documents[record.row["document"]].append(record)
    return [
        *chains,
        *(single[start : start + records_per_document] for start in starts),
        *(sorted(each, key=lambda record: record.row["position"]) for each in documents.values()),
    ]


def _text_files(record: SelectedRecord) -> dict[str, bytes]:
    if record.variants:
        message = f"record {record.id} is selected for text with a style or negative of no image"
        raise ValueError(message)
    # A record has one text here; should it have several, none of them is lost.
    text = "\n".join(caption["text"] for caption in record.captions)
    return {"txt": text.encode(), "json": _text_json(record, record.captions[0])}


def _text_json(record: SelectedRecord, text: Mapping[str, Any]) -> bytes:
    """What a text is; `original`, or one about the subject of the record that it names."""
    return to_json(
        {**_provenance([record]), **{name: text[name] for name in ("variant_id", "kind", "form")}}
    )


def _pair_files(record: SelectedRecord) -> dict[str, bytes]:
    """A picture, or a sound, and its texts."""
    about = {
        **_provenance([record]),
        "captions": record.captions,
        "variants": to_lines(record.variants),
    }
    if record.frames is not None:
        return {"audio.npy": to_npy(record.frames), "json": to_json(about)}
    views = record.image
    has_crops = len(views.boxes) > 1
    return {
        **record.picture,
        "codes.npy": to_npy(views.codes if has_crops else views.codes[0]),
        "json": to_json(about | ({"boxes": views.boxes} if has_crops else {})),
    }


def _mixed_files(records: Sequence[SelectedRecord]) -> dict[str, bytes]:
    segments: list[dict[str, Any]] = []
    grids: list[np.ndarray] = []
    for record in records:
        if record.row["image_id"] is not None:
            segments.append({"type": "image", "index": len(grids)})
            grids.append(record.image.codes[0])
        segments.append({"type": "text", "captions": record.captions})
        if record.bridge:
            # The keys of a caption: `datasets` wants the same in all.
            bridge = {key: value for key, value in record.bridge.items() if key != "next_id"}
            alone = {**bridge, "weight": 1.0, "clip_score": None}
            segments.append({"type": "text", "captions": [alone]})
    return {
        "codes.npy": to_npy(np.stack(grids)),  # (n, h, w)
        "json": to_json(
            {
                **_provenance(records),
                "segments": segments,
                "variants": to_lines([each for record in records for each in record.variants]),
            }
        ),
    }


def _provenance(records: Sequence[SelectedRecord]) -> dict[str, Any]:
    """Ids, and who made what under which licence, in the order of the records."""
    columns = ("source", "origin", "licence", "attribution")
    return {
        "record_ids": [record.id for record in records],
        "provenance": [
            {name: record.row[name] for name in (record.content, *columns)} for record in records
        ],
    }


def _sample_row(document: _Document, stream: str, split: str) -> Row:
    return {
        "key": document.key,
        "stream": stream,
        "split": split,
        "record_ids": document.record_ids,
        "variant_ids": document.variant_ids,
    }
