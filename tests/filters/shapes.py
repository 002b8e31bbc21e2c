"""Records of shapes, for the tests of the scorers."""

import io

from pipeline.engine.fingerprint import hash_bytes
from pipeline.engine.schemas import RECORDS
from pipeline.sources.shapes import draw

RECORD = {field.name: None if field.nullable else "x" for field in RECORDS} | {
    "more_captions": [], "repairs": [], "opt_outs": [],
}  # fmt: skip


def shape_record(index):
    image, caption = draw(index, size=32, seed=0)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    content = stream.getvalue()
    return RECORD | {
        "record_id": f"r{index:03d}",
        "image": content,
        "image_id": hash_bytes(content),
        "width": 32,
        "height": 32,
        "caption": caption,
    }
