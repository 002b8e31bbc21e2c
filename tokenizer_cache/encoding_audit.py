"""Whether the committed codes are what the tokenizer gives: a few images are encoded once more."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import nsmallest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.device import use_threads
from pipeline.engine.corpus import Corpus
from pipeline.engine.machine_cache import local_copy
from pipeline.engine.tables import read_table
from pipeline.errors import RejectError, UserError
from pipeline.images import decode
from pipeline.ledger.audit import Finding
from pipeline.references import image_bytes
from tokenizer_cache.packed_codes import unpack

if TYPE_CHECKING:
    from tokenizer_cache.vq.tokenizer import VQTokenizer

_NUM_IMAGES = 64
_NUM_EXAMPLES = 5
_REMEDY = (
    "Let `anymix gc` remove what is left over, remove PART.parquet of that part under "
    "`tables/tokens` and `tables/samples`, and run the recipe again."
)


def audit_codes(corpus: Corpus) -> Finding:
    """Encode 64 images of a corpus again from its records: those whose hashes are the smallest.

    The corpus's files are whole: `pipeline.ledger.audit` has found nothing.
    """
    chosen = nsmallest(_NUM_IMAGES, _smallest_ids(corpus.files("tokens")))
    tokenizer = _load(corpus.models["vq"]) if chosen else None
    faults = []
    for path in sorted({path for _, path in chosen}):
        wanted = pa.array([image_id for image_id, held in chosen if held == path], pa.string())
        columns = ["image_id", "image", "image_ref"]
        own = _with_images(corpus.tables["records"][path.stem], wanted, columns)
        records = {record["image_id"]: record for record in own}
        for row in _with_images(path, wanted):
            assert tokenizer is not None, "there are images"  # noqa: S101
            if fault := _fault(row, records.get(row["image_id"]), tokenizer):
                faults.append(f"image {row['image_id']} of part {path.stem}: {fault}")
    return Finding(
        check="images that are encoded again have the codes that were committed",
        checked=len(chosen),
        faults=len(faults),
        examples=tuple(faults[:_NUM_EXAMPLES]),
        remedy=_REMEDY if faults else "",
    )


def _smallest_ids(files: list[Path]) -> Iterator[tuple[str, Path]]:
    for path in files:
        ids = read_table(path, ["image_id"])["image_id"].unique().to_pylist()
        yield from ((image_id, path) for image_id in nsmallest(_NUM_IMAGES, ids))


def _with_images(
    path: Path, image_ids: pa.Array, columns: list[str] | None = None
) -> list[dict[str, Any]]:
    """The rows of a table's part that have one of these images."""
    rows: list[dict[str, Any]] = (
        read_table(path, columns).filter(pc.field("image_id").isin(image_ids)).to_pylist()
    )
    return rows


def _load(folder: Path) -> VQTokenizer:
    from tokenizer_cache.vq.tokenizer import load_vq

    return load_vq(local_copy(folder))


def _fault(
    row: dict[str, Any], record: dict[str, Any] | None, tokenizer: VQTokenizer
) -> str | None:
    """What is wrong with the codes of an image; None where they are the same."""
    if record is None:
        return "no record has it"
    try:
        (content,) = image_bytes([record])
        image = decode(content)
        view = image.crop(row["box"]) if row["view"] else image
        with use_threads(1):  # as the stage
            again = tokenizer.encode_images([view])[0]  # (h, w)
    except (UserError, RejectError) as error:
        return str(error)
    codes = unpack(row)
    if again.shape != codes.shape:
        return f"its grid is {codes.shape}, and {again.shape} now"
    num_other = int((again != codes).sum())
    return f"{num_other} of {codes.size} codes are others" if num_other else None
