"""The selected records of a part, with all that a shard has of them: texts, codes, pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipeline.engine.schemas import CAPTION_KINDS, original_texts, reject
from pipeline.engine.stage import Row, Work
from tokenizer_cache.audio.encode import frames_by_record
from tokenizer_cache.packed_codes import VIEW_COLUMNS, Views, views_by_image
from tokenizer_cache.sample_files import shortest, to_pictures
from tokenizer_cache.settings import PictureSettings

_RECORD_COLUMNS = (
    "record_id", "image_id", "sound_id", "source", "origin", "licence", "attribution", "caption",
    "more_captions", "document", "position",
)  # fmt: skip

_APART = ("style", "negative")
"""Kinds that no reader may take for a caption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedRecord:
    """A selected record with the texts that were selected for it.

    Attributes:
        row: its row of `records`.
        stream: where it goes.
        split: which split it belongs to.
        captions: what describes it as it is.
        variants: styles and negatives.
        prose: texts about its subject, for the text stream.
        bridge: the text that leads to the record `next_id`; None without one.
        views: the codes of its image; None without one.
        frames: (n, q) uint16; None without a sound.
        picture: its file by extension, where the image stream has pictures.
    """

    row: Mapping[str, Any]
    stream: str
    split: str
    captions: Sequence[Mapping[str, Any]]
    variants: Sequence[Mapping[str, Any]]
    prose: Sequence[Mapping[str, Any]]
    bridge: Mapping[str, Any] | None
    views: Views | None
    frames: np.ndarray | None
    picture: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Its record id."""
        return str(self.row["record_id"])

    @property
    def content(self) -> str:
        """The column with the hash of its sound, or of its picture, if it has one."""
        return "image_id" if self.row["sound_id"] is None else "sound_id"

    @property
    def image(self) -> Views:
        """The codes of the image that it has."""
        if self.views is None:
            message = f"record {self.id} is selected for {self.stream}; its image has no codes"
            raise ValueError(message)
        return self.views


def selected_records(work: Work) -> Iterator[SelectedRecord]:
    """The part's selected records in the order of the selection."""
    by_record: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in work.read("selection").to_pylist():
        by_record[row["record_id"]].append(row)
    records = {
        row["record_id"]: row
        for row in work.read("records", _RECORD_COLUMNS).to_pylist()
        if row["record_id"] in by_record
    }
    columns = ["record_id", "variant_id", "form", "text", "style", "next_id"]
    written = {
        (row["record_id"], row["variant_id"]): row
        for row in work.read("variants", columns).to_pylist()
    }
    columns = ["record_id", "variant_id", "clip_score"]
    scores = {
        (row["record_id"], row["variant_id"]): row["clip_score"]
        for row in work.read("scores", columns).to_pylist()
    }
    views = views_by_image(work.read("tokens", VIEW_COLUMNS))
    frames = frames_by_record(work)
    for record_id, chosen in by_record.items():
        row = records.get(record_id)
        if row is None or (row["image_id"] is not None and row["image_id"] not in views):
            continue  # in quarantine, with its reason, here or in `tokenize`
        if row["sound_id"] is not None and record_id not in frames:
            continue
        texts = [
            _text(each, row, written.get((record_id, each["variant_id"])), scores)
            for each in chosen
        ]
        captions = [text for text in texts if text["kind"] in CAPTION_KINDS]
        streams = {each["stream"] for each in chosen if each["kind"] in CAPTION_KINDS}
        yield SelectedRecord(
            row=row,
            stream=streams.pop(),
            split=chosen[0]["split"],
            captions=captions,
            variants=[text for text in texts if text["kind"] in _APART],
            prose=[text for text in texts if text["kind"] == "text"],
            bridge=next((text for text in texts if text["kind"] == "interleave"), None),
            views=views.get(row["image_id"]),
            frames=frames.get(record_id),
        )


def without_loose_bridges(
    records: Sequence[SelectedRecord],
) -> tuple[list[SelectedRecord], list[Row]]:
    """The records, and the rejects of the texts that lead to none of them."""
    there = {record.id for record in records}
    kept: list[SelectedRecord] = []
    rejects: list[Row] = []
    for record in records:
        if record.bridge is None or record.bridge["next_id"] in there:
            kept.append(record)
            continue
        kept.append(replace(record, bridge=None))
        rejects.append(
            reject(
                record_id=record.id,
                variant_id=record.bridge["variant_id"],
                stage="shards",
                reason="bridge-without-end",
                detail="the record that it leads to is left out",
            )
        )
    return kept, rejects


def with_pictures(
    records: Sequence[SelectedRecord], work: Work, settings: PictureSettings
) -> list[SelectedRecord]:
    """The records, those of the image stream with their pictures."""
    wanted = {record.id for record in records if record.stream == "image"}
    columns = ["record_id", "image_id", "image", "image_ref"]
    images = work.read("records", columns).filter(pc.field("record_id").isin(list(wanted)))
    rows = images.to_pylist()
    names = (row["record_id"] for row in work.each(rows))
    pictures = dict(zip(names, to_pictures(rows, settings), strict=True))
    return [replace(record, picture=pictures.get(record.id, {})) for record in records]


def _text(
    chosen: Mapping[str, Any],
    record: Mapping[str, Any],
    variant: Mapping[str, Any] | None,
    scores: Mapping[tuple[str, str], float | None],
) -> dict[str, Any]:
    """A selected text as a sample's JSON has it."""
    variant_id, kind = chosen["variant_id"], chosen["kind"]
    known = {"variant_id": variant_id, "kind": kind}
    if variant is None:
        known |= {"form": "", "text": dict(original_texts(record))[variant_id]}
    else:
        known |= {"form": variant["form"], "text": variant["text"]}
    if kind in CAPTION_KINDS:
        clip_score = scores.get((record["record_id"], variant_id))
        return {
            **known, "weight": shortest(chosen["weight"]), "clip_score": shortest(clip_score)
        }  # fmt: skip
    assert variant is not None, "what is no caption was written by the LLM"  # noqa: S101
    if kind == "interleave":
        return {**known, "next_id": variant["next_id"]}
    return {"record_id": record["record_id"], **known, "style": variant["style"]}
