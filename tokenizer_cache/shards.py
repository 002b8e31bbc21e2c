"""From the selection to WebDataset shards, one per part, stream and split.

A shard is a plain tar that stock `webdataset` and `datasets` read. Its samples are

- text:  `KEY.json` `KEY.txt`
- image: `KEY.codes.npy` (h, w) `KEY.json` `KEY.variants.jsonl`
- mixed: `KEY.codes.npy` (n, h, w) `KEY.json` `KEY.variants.jsonl`, an interleaved document in which
  each image is followed by its captions: a source's own document, with its texts that have no
  image, or a few records put together.

`KEY.json` holds only texts that describe the picture. Styles and negatives stand apart in
`KEY.variants.jsonl`, so that no reader takes one for a caption. They are raw bytes to stock readers
because `datasets` infers a type from the first five samples: a list of objects that is empty in
these five and filled later ends its load with a TypeError.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engine.fingerprint import hash_file
from pipeline.engine.schemas import CAPTION_KINDS, original_texts
from pipeline.engine.stage import Output, Row, Work
from pipeline.engine.storage import committing, to_path
from tokenizer_cache.settings import ShardSettings

_RECORD_COLUMNS = (
    "record_id", "image_id", "source", "origin", "licence", "attribution", "caption",
    "more_captions", "document", "position",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """A selected record with the texts that were selected for it."""

    row: Mapping[str, Any]
    stream: str
    split: str
    captions: Sequence[Mapping[str, Any]]
    variants: Sequence[Mapping[str, Any]]
    codes: np.ndarray | None  # (h, w) uint16; None without an image

    @property
    def id(self) -> str:
        return str(self.row["record_id"])

    @property
    def grid(self) -> np.ndarray:
        if self.codes is None:
            message = f"record {self.id} is selected for {self.stream}; its image has no codes"
            raise ValueError(message)
        return self.codes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    """One sample: its records, and its files by extension."""

    records: Sequence[_Record]
    files: Mapping[str, bytes]

    @property
    def key(self) -> str:
        return self.records[0].id


class ShardWorker:
    """Writes the shards of one part.

    Reads: `selection`, `records`, `variants`, `scores`, `tokens`; from `work.extra` the `folder`
        of the shards and the `names` that `allot_names` gave the part.
    Writes: the tars into the folder, and one row of `samples` per sample.
    Rejects: none; a selected record without text or shard is a fault of the program. One without
        codes is left out: `tokenize` has rejected it.
    Source: WebDataset (github.com/webdataset/webdataset).
    """

    def __init__(self, settings: ShardSettings, _models: Mapping[str, Path]) -> None:
        self.settings = settings

    def __call__(self, work: Work) -> Output:
        """Write the part's shards; the same work gives the same bytes."""
        shards: dict[tuple[str, str], list[_Record]] = defaultdict(list)
        for record in _selected_records(work):
            shards[record.stream, record.split].append(record)
        rows: list[Row] = []
        for (stream, split), records in sorted(shards.items()):
            name = work.extra["names"][f"{stream}/{split}"]
            documents = _documents(stream, records, self.settings.records_per_document)
            tar = to_path(work.extra["folder"]) / name
            write_tar(
                tar,
                ((f"{each.key}.{extension}", each.files[extension])
                 for each in documents for extension in sorted(each.files)),
            )  # fmt: skip
            shard = {
                "shard": name,
                "shard_sha256": hash_file(tar),
                "shard_size_bytes": tar.stat().st_size,
            }
            rows += [_sample_row(each, stream, split) | shard for each in documents]
        return Output(rows=rows)


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Commit a tar whose bytes depend on nothing but the members' names, contents and order."""
    with (
        committing(path) as temporary,
        tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, content in members:
            member = tarfile.TarInfo(name)  # mtime 0, uid 0, gid 0, mode 0644
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def _selected_records(work: Work) -> Iterator[_Record]:
    """The part's selected records in the order of the selection."""
    by_record: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in work.read("selection").to_pylist():
        by_record[row["record_id"]].append(row)
    records = {
        row["record_id"]: row
        for row in work.read("records", _RECORD_COLUMNS).to_pylist()
        if row["record_id"] in by_record
    }
    columns = ["record_id", "variant_id", "text", "style"]
    written = {
        (row["record_id"], row["variant_id"]): row
        for row in work.read("variants", columns).to_pylist()
    }
    columns = ["record_id", "variant_id", "clip_score"]
    scores = {
        (row["record_id"], row["variant_id"]): row["clip_score"]
        for row in work.read("scores", columns).to_pylist()
    }
    codes = {
        row["image_id"]: np.frombuffer(row["codes"], "<u2").reshape(row["rows"], row["columns"])
        for row in work.read("tokens").to_pylist()
    }
    for record_id, chosen in by_record.items():
        row = records.get(record_id)
        if row is None or (row["image_id"] is not None and row["image_id"] not in codes):
            continue  # in quarantine, with its reason, here or in `tokenize`
        given = dict(original_texts(row))
        captions, variants = [], []
        for each in chosen:
            text_id = (record_id, each["variant_id"])
            is_given = each["kind"] == "original"
            text = given[each["variant_id"]] if is_given else written[text_id]["text"]
            known = {"variant_id": each["variant_id"], "kind": each["kind"], "text": text}
            if each["kind"] in CAPTION_KINDS:
                captions.append({**known, "clip_score": scores.get(text_id)})
            else:
                style = written[text_id]["style"]
                variants.append({"record_id": record_id, **known, "style": style})
        yield _Record(
            row=row,
            stream=chosen[0]["stream"],
            split=chosen[0]["split"],
            captions=captions,
            variants=variants,
            codes=codes.get(row["image_id"]),
        )


def _documents(
    stream: str, records: Sequence[_Record], records_per_document: int
) -> list[_Document]:
    """The samples of one shard, in the order of its records."""
    for record in records:
        if not record.captions:
            message = f"record {record.id} is selected without a caption"
            raise ValueError(message)
    match stream:
        case "text":
            return [_Document(records=[each], files=_text_files(each)) for each in records]
        case "image":
            return [_Document(records=[each], files=_image_files(each)) for each in records]
        case "mixed":
            groups = _mixed_groups(records, records_per_document)
            return [_Document(records=each, files=_mixed_files(each)) for each in groups]
    message = f"no stream is called {stream}"
    raise ValueError(message)


def _mixed_groups(records: Sequence[_Record], records_per_document: int) -> list[list[_Record]]:
    """Single records a few at a time, then each of the source's documents in its own order."""
    single = [record for record in records if record.row["document"] is None]
    starts = range(0, len(single), records_per_document)
    documents: dict[str, list[_Record]] = defaultdict(list)
    for record in records:
        if record.row["document"] is not None:
            documents[record.row["document"]].append(record)
    return [
        *(single[start : start + records_per_document] for start in starts),
        *(sorted(each, key=lambda record: record.row["position"]) for each in documents.values()),
    ]


def _text_files(record: _Record) -> dict[str, bytes]:
    if record.variants:
        message = f"record {record.id} is selected for text with a style or negative of no image"
        raise ValueError(message)
    # A record has one text here; should it have several, none of them is lost.
    text = "\n".join(caption["text"] for caption in record.captions)
    return {"txt": text.encode(), "json": _to_json(_provenance([record]))}


def _image_files(record: _Record) -> dict[str, bytes]:
    return {
        "codes.npy": _to_npy(record.grid),
        "json": _to_json({**_provenance([record]), "captions": record.captions}),
        "variants.jsonl": _to_jsonl(record.variants),
    }


def _mixed_files(records: Sequence[_Record]) -> dict[str, bytes]:
    segments: list[dict[str, Any]] = []
    grids: list[np.ndarray] = []
    for record in records:
        if record.row["image_id"] is not None:
            segments.append({"type": "image", "index": len(grids)})
            grids.append(record.grid)
        segments.append({"type": "text", "captions": record.captions})
    return {
        "codes.npy": _to_npy(np.stack(grids)),  # (n, h, w)
        "json": _to_json({**_provenance(records), "segments": segments}),
        "variants.jsonl": _to_jsonl([each for record in records for each in record.variants]),
    }


def _provenance(records: Sequence[_Record]) -> dict[str, Any]:
    """Ids, and who made what under which licence, in the order of the records."""
    columns = ("image_id", "source", "origin", "licence", "attribution")
    return {
        "record_ids": [record.id for record in records],
        "provenance": [{name: record.row[name] for name in columns} for record in records],
    }


def _sample_row(document: _Document, stream: str, split: str) -> Row:
    return {
        "key": document.key,
        "stream": stream,
        "split": split,
        "record_ids": [record.id for record in document.records],
        "variant_ids": [
            f"{record.id}/{text['variant_id']}"
            for record in document.records
            for text in (*record.captions, *record.variants)
        ],
    }


def _to_json(value: Any) -> bytes:  # noqa: ANN401 - whatever JSON can say
    return json.dumps(value, ensure_ascii=False).encode()


def _to_jsonl(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(_to_json(row) + b"\n" for row in rows)


def _to_npy(codes: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, codes, allow_pickle=False)
    return stream.getvalue()
