from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pipeline.engine.fingerprint import hash_bytes
from pipeline.engine.tables import write_table
from pipeline.engine.token_schemas import TOKENS
from tokenizer_cache.packed_codes import bits_per_code, pack, unpack


@given(st.data(), st.integers(2, 65_536))
def test_codes_come_back_as_they_were_packed(data: st.DataObject, codebook_size: int) -> None:
    codes = data.draw(
        arrays(
            np.uint16,
            array_shapes(min_dims=3, max_dims=3, max_side=9),
            elements=st.integers(0, codebook_size - 1),
        )
    )
    bits = bits_per_code(codebook_size)
    _, height, width = codes.shape
    for grid, packed in zip(codes, pack(codes, bits), strict=True):
        assert len(packed) == -(-height * width * bits // 8)
        row = {"rows": height, "columns": width, "bits": bits, "codes": packed}
        assert np.array_equal(unpack(row), grid)


@pytest.mark.parametrize(
    ("codebook_size", "bits"), [(2, 1), (3, 2), (512, 9), (8192, 13), (16_384, 14), (65_536, 16)]
)
def test_a_codebook_takes_the_bits_of_its_highest_code(codebook_size: int, bits: int) -> None:
    assert bits_per_code(codebook_size) == bits


def test_a_codebook_whose_codes_are_no_uint16_is_refused() -> None:
    with pytest.raises(ValueError, match="a codebook of 65537 codes has more than 65536"):
        bits_per_code(65_537)


def test_a_code_outside_the_codebook_is_refused() -> None:
    with pytest.raises(ValueError, match="512 needs more than 9 bits"):
        pack(np.full((1, 2, 2), 512, np.uint16), 9)


def test_the_bits_stand_in_raster_order_with_the_highest_first() -> None:
    (packed,) = pack(np.array([[[0b101, 0b001], [0b111, 0b010]]], np.uint16), 3)
    assert packed == bytes([0b10100111, 0b10100000])


@pytest.mark.parametrize(
    ("side", "codebook_size", "column", "file"),
    [(8, 512, 1.06, 1.6), (16, 8192, 1.02, 1.12), (24, 16_384, 1.01, 1.05)],
)
def test_codes_take_hardly_more_on_disk_than_their_bits(
    tmp_path: Path, side: int, codebook_size: int, column: float, file: float
) -> None:
    # Codes that are used alike and hang on nothing: nothing can store them in fewer bits. The rest
    # of the file is nearly all ids of images, 32 bytes each.
    codes = np.random.default_rng(0).integers(0, codebook_size, (1000, side, side), np.uint16)
    bits = bits_per_code(codebook_size)
    same = {"tokenizer": "0123456789abcdef", "view": 0, "box": [0, 0, 64, 64], "bits": bits}
    same |= {"rows": side, "columns": side}
    rows = [{"image_id": hash_bytes(own), **same, "codes": own} for own in pack(codes, bits)]
    path = tmp_path / "part.parquet"
    write_table(path, rows, TOKENS)
    floor = codes.size * bits / 8
    group = pq.read_metadata(path).row_group(0)
    chunks = {c.path_in_schema: c for c in map(group.column, range(group.num_columns))}
    assert 1 <= chunks["codes"].total_compressed_size / floor <= column
    assert path.stat().st_size / floor <= file
