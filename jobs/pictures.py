"""Records of a corpus that samples are drawn of, and that an evaluation looks for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from filters.settings import ScoreSettings
from pipeline import images
from pipeline.engine.corpus import MODEL_FILE, Corpus
from pipeline.engine.machine_cache import local_copy
from pipeline.references import image_bytes

if TYPE_CHECKING:
    from PIL import Image

    from tokenizer_cache.manifest import Manifest
    from trainer.evaluate.retrieval import Gallery


class PictureRecord(NamedTuple):
    """A picture with its caption; `content` is the encoded image."""

    caption: str
    image_id: str
    source: str
    key: str
    content: bytes


def chosen_records(
    corpus: Corpus, split: Literal["train", "validation"], count: int, salt: str
) -> list[PictureRecord]:
    """Some records of the shards with pictures.

    Args:
        corpus: with a committed selection.
        split: `validation` for held-out ones, or `train`.
        count: how many at most.
        salt: another one chooses others.
    """
    chosen = corpus.query(
        "SELECT record_id FROM (SELECT DISTINCT record_id FROM selection "
        f"WHERE split = '{split}' AND stream IN ('image', 'mixed')) "
        f"ORDER BY md5('{salt}:' || record_id) LIMIT {count}"
    ).fetchall()
    ids = [record_id for (record_id,) in chosen]
    found = _read(corpus, ids)
    return [found[record_id] for record_id in ids]


def checked_pictures(corpus: Corpus, manifest: Manifest) -> dict[str, Image.Image]:
    """The true pictures that a training checks its consistency with, by their records' ids."""
    from tokenizer_cache.shard_reading import read_shard
    from trainer.evaluate.consistency import NUM_PICTURES

    samples = (
        sample for path in manifest.paths("image", "validation") for sample in read_shard(path)
    )
    chosen = islice(samples, NUM_PICTURES)
    ids = [record_id for each in chosen for record_id in each.metadata["record_ids"][:1]]
    return {id_: images.decode(each.content) for id_, each in _read(corpus, ids).items()}


def gallery_of(corpus: Corpus, count: int) -> Gallery | None:
    """Held-out pictures of different images, and the corpus's CLIP; an icon's style is its set.

    Returns:
        None where there is no CLIP, or no picture with a caption.
    """
    folder = corpus.models.get("clip")
    if folder is None or not (folder / MODEL_FILE).exists():
        return None
    records = chosen_records(corpus, "validation", count, "retrieval")
    distinct = {record.image_id: record for record in records if record.caption}
    if not distinct:
        return None
    from filters.clip import load_scorers
    from trainer.evaluate.retrieval import Gallery, HeldOut

    sets = {each["name"] for each in corpus.recipe["sources"] if each["kind"] == "iconify"}
    clip = ScoreSettings.model_validate(corpus.recipe["score"]).clip
    pictures = [
        HeldOut(
            image_id=record.image_id,
            image=images.decode(record.content),
            caption=record.caption,
            style=Path(record.key).parts[0] if record.source in sets else None,
        )
        for record in distinct.values()
    ]
    return Gallery(pictures=pictures, clip=load_scorers(local_copy(folder), clip))


def _read(corpus: Corpus, ids: Sequence[str]) -> dict[str, PictureRecord]:
    """Records with pictures, by their ids."""
    if not ids:
        return {}
    columns = "record_id, caption, source, key, image_id, image, image_ref"
    rows = corpus.query(f"SELECT {columns} FROM records")
    # Once more, as a tuple of one ends in a comma.
    found = rows.filter(f"record_id IN {(*ids, ids[0])}").to_arrow_table().to_pylist()
    return {row["record_id"]: _record(row, content)
            for row, content in zip(found, image_bytes(found), strict=True)}  # fmt: skip


def _record(row: dict[str, Any], content: bytes) -> PictureRecord:
    return PictureRecord(row["caption"] or "", row["image_id"], row["source"], row["key"], content)
