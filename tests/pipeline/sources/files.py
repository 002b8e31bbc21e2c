"""Source files for the tests: small pictures, and files of rows written as people write them."""

import io
import json
import os
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.engine.parts import UnreadableRecord
from pipeline.sources import open_source


def png(shade=0):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_lines(path, *lines):
    """Write lines of text or bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = (line if isinstance(line, bytes) else line.encode() for line in lines)
    path.write_bytes(b"".join(line + b"\n" for line in encoded))
    return path


def write_json_lines(path, *rows):
    return write_lines(path, *(row if isinstance(row, str) else json.dumps(row) for row in rows))


def write_parquet(path, columns, *, row_group_size=None):
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def read(settings, rows_per_part=100):
    """All records of a source, and its rejects as (key, reason)."""
    source = open_source(settings)
    records, rejects = [], []
    for part in source.parts(rows_per_part, {}):
        found = list(source.read(part))
        assert len(found) == part.num_records
        records += [each for each in found if not isinstance(each, UnreadableRecord)]
        rejects += [(each.key, each.reason) for each in found if isinstance(each, UnreadableRecord)]
    keys = [each.key for each in records] + [key for key, _ in rejects]
    assert len(set(keys)) == len(keys)
    return records, rejects


def parts_of(settings, known=(), rows_per_part=10):
    known = {part.look: part for part in known}
    return list(open_source(settings).parts(rows_per_part, known))


@contextmanager
def forbidden_to_root():
    """Lets a root process be refused what a file's mode refuses others."""
    own = os.geteuid()
    if own:
        yield
        return
    os.seteuid(65534)  # nobody
    try:
        yield
    finally:
        os.seteuid(own)
