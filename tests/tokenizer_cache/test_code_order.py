import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizer_cache.code_order import cells, nested_scales, to_grid, to_sequence
from tokenizer_cache.vocabulary import TokenRange

grids = st.tuples(st.integers(1, 24), st.integers(1, 24))


def image_range(grid: tuple[int, int], order: str) -> TokenRange:
    scales = () if order == "raster" else nested_scales(grid)
    return TokenRange(
        modality="image", start=0, size=8, tokenizer="vq", grid=grid, order=order, scales=scales
    )


@settings(deadline=None)
@given(grids, st.sampled_from(["raster", "coarse-first"]))
def test_a_grid_comes_back_from_its_sequence(grid: tuple[int, int], order: str) -> None:
    codes = np.arange(grid[0] * grid[1]).reshape(grid)
    held = image_range(grid, order)
    sequence = to_sequence(codes, held)
    assert sorted(sequence) == list(range(held.num_codes))
    assert (to_grid(sequence, held) == codes).all()
    assert (to_grid(np.stack([sequence, sequence]), held) == codes).all()


@given(grids, st.sampled_from(["raster", "coarse-first"]))
def test_cells_say_where_each_code_of_a_sequence_is(grid: tuple[int, int], order: str) -> None:
    codes = np.arange(grid[0] * grid[1]).reshape(grid)
    held = image_range(grid, order)
    row, column = cells(held).T
    assert (codes[row, column] == to_sequence(codes, held)).all()


def test_cells_of_several_scales_are_all_different() -> None:
    found = cells(image_range((8, 8), "scales"))
    assert len({tuple(cell) for cell in found.tolist()}) == len(found) == 2 * 2 + 4 * 4 + 8 * 8


def test_coarse_first_reads_8x8_then_16x16_then_32x32() -> None:
    held = image_range((32, 32), "coarse-first")
    assert held.scales == ((8, 8), (16, 16), (32, 32))
    codes = np.arange(1024).reshape(32, 32)
    sequence = to_sequence(codes, held)
    for step in (4, 2, 1):
        subgrid = codes[::step, ::step]
        assert sorted(sequence[: subgrid.size]) == sorted(subgrid.ravel())


def test_scales_of_their_own_have_more_codes_than_the_grid() -> None:
    held = image_range((32, 32), "scales")
    assert held.num_codes == 8 * 8 + 16 * 16 + 32 * 32
    codes = np.arange(held.num_codes)
    assert (to_sequence(codes, held) == codes).all()
    assert (to_grid(codes, held) == codes).all()


def test_an_odd_grid_has_fewer_scales() -> None:
    assert nested_scales((24, 24)) == ((6, 6), (12, 12), (24, 24))
    assert nested_scales((6, 10)) == ((3, 5), (6, 10))
    assert nested_scales((5, 5)) == ((5, 5),)


@settings(deadline=None)
@given(st.integers(2, 8), st.integers(1, 9), st.data())
def test_codes_of_a_sound_stand_frame_by_frame_each_codebook_with_ids_of_its_own(
    codebooks: int, frames: int, data: st.DataObject
) -> None:
    held = TokenRange(
        modality="audio", start=0, size=16 * codebooks, tokenizer="a", codebooks=codebooks
    )
    flat = data.draw(st.lists(st.integers(0, 15), min_size=frames * codebooks).map(tuple))
    codes = np.array(flat[: frames * codebooks], np.uint16).reshape(frames, codebooks)
    sequence = to_sequence(codes, held)
    assert [token // 16 for token in sequence.tolist()] == list(range(codebooks)) * frames
    assert (to_grid(sequence, held) == codes).all()
