"""A small corpus of generated pictures, as the tables that the stages before would have written."""

import atexit
import hashlib
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from PIL import Image

from pipeline.engine import schemas
from pipeline.engine.stage import FitInputs, Work
from pipeline.engine.tables import part_path, write_table
from pipeline.synthesis.forms import forms_of
from tokenizer_cache.packed_codes import pack
from tokenizer_cache.publishing import staged_folder
from tokenizer_cache.settings import TextSettings, VQSettings
from tokenizer_cache.text import fit as fit_text

TINY_VQ = VQSettings(
    image_size=16, codebook_size=16, width=16, depth=1, steps=12, batch_size=8, stride=8
)
TINY_GRID = (2, 2)
TINY_BITS = 9
"""Enough for what `write_part` gives as codes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """A record and the texts and the stream that were selected for it."""

    record_id: str
    stream: str
    split: str = "train"
    caption: str = "a red square"
    variants: Sequence[tuple[str, str, str]] = ()  # variant_id, kind, text
    more_captions: Sequence[tuple[str, str]] = ()  # name, text
    document: str | None = None
    position: int | None = None
    has_image: bool = True  # in the image and mixed streams
    num_crops: int = 0  # crop n has the picture's codes and 100 n more
    next_id: str | None = None  # where its variant of the kind `interleave` leads to


def png(seed: int, size: int = 16) -> bytes:
    random = np.random.default_rng(seed)
    pixels = np.full((size, size, 3), 255, np.uint8)
    top, left = random.integers(0, size // 2, 2)
    pixels[top : top + size // 2, left : left + size // 2] = random.integers(0, 255, 3)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write_part(
    root: Path, part: str, selected: Sequence[Selected], *, with_tokens: bool = True
) -> dict[str, Path]:
    """Write all tables of a part; each record of the image or mixed stream has its own picture."""
    rows: dict[str, list[dict[str, object]]] = {
        name: [] for name in ("records", "variants", "scores", "selection", "tokens")
    }
    for number, record in enumerate(selected):
        image = png(number) if record.has_image and record.stream != "text" else None
        image_id = None if image is None else hashlib.sha256(image).hexdigest()
        rows["records"].append(_record(record, image, image_id))
        further = [(f"original-{name}", "original", text) for name, text in record.more_captions]
        texts = [(schemas.ORIGINAL, "original", record.caption), *further, *record.variants]
        for variant_id, kind, text in texts:
            ids = {"record_id": record.record_id, "variant_id": variant_id, "kind": kind}
            place = {"stream": record.stream, "split": record.split}
            weight = 1.0 if kind in schemas.CAPTION_KINDS else None
            place["stream"] = "text" if kind == "text" else record.stream
            rows["selection"].append({**ids, **place, "weight": weight})
            score = None if image is None else 0.25
            rows["scores"].append({**ids, "caption_quality": 1.0, "clip_score": score})
            if kind != "original":
                rows["variants"].append({**ids, **_written(text, kind, record.next_id)})
        if image_id is not None and with_tokens:
            of_image = {"image_id": image_id, "tokenizer": "vq", "box": [0, 0, 16, 16]}
            grid = {"rows": 2, "columns": 2, "bits": TINY_BITS}
            codes = np.arange(4, dtype=np.uint16).reshape(1, 2, 2) + number
            codes = np.concatenate([codes + 100 * view for view in range(1 + record.num_crops)])
            rows["tokens"] += [
                {**of_image, **grid, "view": view, "codes": own}
                for view, own in enumerate(pack(codes, TINY_BITS))
            ]
    paths = {}
    for name, table in rows.items():
        paths[name] = part_path(root / name, part)
        write_table(paths[name], table, schemas.TABLES[name])
    return paths


def fit_inputs(*parts: dict[str, Path]) -> FitInputs:
    return FitInputs(
        tables={name: [part[name] for part in parts] for name in ("records", "variants")},
        models={},
    )


@cache
def text_models() -> dict[str, Path]:
    """The folder of a text tokenizer that knows bytes alone, as the shards' stage loads it."""
    folder = Path(mkdtemp(prefix="anymix-text-"))
    atexit.register(shutil.rmtree, folder)
    part = write_part(folder, "part", [Selected(record_id="a", stream="text")])
    list(fit_text(TextSettings(vocab_size=256), fit_inputs(part), folder))
    return {"text": folder}


def encode_work(
    root: Path, inputs: dict[str, Path], part: str = "part", tokenizer: str = "vq"
) -> Work:
    """What the stage that tokenizes is told in the corpus at `root`."""
    return Work(part=part, inputs=inputs, extra={"tokenizer": tokenizer, "corpus": str(root)})


def shard_work(root: Path, inputs: dict[str, Path], part: str = "part", run: str = "run") -> Work:
    """What the stage that writes shards is told in the corpus at `root`."""
    return Work(part=part, inputs=inputs, extra={"folder": str(root / "shards")}, fingerprint=run)


def written_by(work: Work) -> Path:
    """Where the shards lie that a part's work has given."""
    return staged_folder(Path(work.extra["folder"]), work.part, work.fingerprint)


def _record(record: Selected, image: bytes | None, image_id: str | None) -> dict[str, object]:
    return {
        "record_id": record.record_id,
        "source": "generated",
        "key": record.record_id,
        "image_id": image_id,
        "image": image,
        "width": image and 16,
        "height": image and 16,
        "caption": record.caption,
        "licence": "CC0-1.0",
        "attribution": "nobody",
        "split": record.split,
        "origin": f"generated://{record.record_id}",
        "more_captions": [{"name": name, "text": text} for name, text in record.more_captions],
        "document": record.document,
        "position": record.position,
        "repairs": [],
        "opt_outs": [],
    }


def _written(text: str, kind: str, next_id: str | None) -> dict[str, object]:
    return {
        "text": text,
        "form": forms_of(kind)[0],
        "style": "ink" if kind == "style" else None,
        "next_id": next_id if kind == "interleave" else None,
        "attempt": 1,
        "model": "none",
        "prompt": "none",
        "temperature": 0.0,
        "top_p": 1.0,
        "max_tokens": 1,
        "seed": 0,
        "num_prompt_tokens": 0,
        "num_output_tokens": 0,
    }
