import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.conftest import random_decoder
from trainer.data.packing import NO_TARGET, build_row, pack, spread, unpack
from trainer.model.decoder import Decoder
from trainer.model.masks import document_mask

lengths = st.lists(st.integers(1, 16), max_size=60)


@given(lengths)
def test_every_document_is_packed_once_and_into_few_rows(lengths: list[int]) -> None:
    rows = pack(np.array(lengths, np.int64), seq_len=16)
    packed = sorted(document for row in rows for document in row.tolist())
    assert packed == list(range(len(lengths)))
    filled = [sum(lengths[document] for document in row) for row in rows]
    assert all(0 < length <= 16 for length in filled)
    assert sum(length * 2 <= 16 for length in filled) <= 1  # two of them would be one row


@given(st.lists(st.integers(0, 3), min_size=1, max_size=300))
def test_rows_of_a_kind_are_spread_over_all_of_them(kinds: list[int]) -> None:
    order = spread([np.array(kinds)])
    assert sorted(order.tolist()) == list(range(len(kinds)))
    visited = np.array(kinds)[order]
    for kind in set(kinds):
        expected = (np.arange(len(kinds)) + 1) * kinds.count(kind) / len(kinds)
        assert np.abs(np.cumsum(visited == kind) - expected).max() < 6


def test_targets_and_positions_stay_inside_each_document() -> None:
    row = build_row([[5, 6, 7], [8, 9]], seq_len=7, pad=0)
    assert row.tokens.tolist() == [5, 6, 7, 8, 9, 0, 0]
    assert row.targets.tolist() == [6, 7, NO_TARGET, 9, NO_TARGET, NO_TARGET, NO_TARGET]
    assert row.documents.tolist() == [1, 1, 1, 2, 2, 0, 0]
    assert row.positions.tolist() == [0, 1, 2, 0, 1, 0, 0]
    assert row.weights.tolist() == [1, 1, 0, 1, 0, 0, 0]
    assert unpack(row) == [[5, 6, 7], [8, 9]]


def test_a_document_in_a_row_changes_no_logits_of_the_others(random_model: Decoder) -> None:
    def logits(second: list[int]) -> torch.Tensor:
        row = build_row([[5, 6, 7], second, [8, 9, 10, 11]], seq_len=12, pad=0)
        tokens, documents, positions = (
            torch.from_numpy(values)[None] for values in (row.tokens, row.documents, row.positions)
        )
        return random_model(
            tokens,
            positions=positions,
            places=torch.zeros_like(tokens),
            mask=document_mask(documents),
        )[0]

    one, other = logits([20, 21, 22]), logits([30, 31, 32])
    assert torch.equal(one[:3], other[:3])
    assert torch.equal(one[6:10], other[6:10])
    assert not torch.equal(one[3:6], other[3:6])


def test_a_packed_document_has_the_logits_that_it_has_alone(random_model: Decoder) -> None:
    document = [8, 9, 10, 11]
    alone = build_row([document], seq_len=4, pad=0)
    packed = build_row([[5, 6, 7], document], seq_len=12, pad=0)
    logits = []
    for row in (alone, packed):
        tokens, documents, positions = (
            torch.from_numpy(values)[None] for values in (row.tokens, row.documents, row.positions)
        )
        logits.append(
            random_model(
                tokens,
                positions=positions,
                places=torch.zeros_like(tokens),
                mask=document_mask(documents),
            )[0]
        )
    torch.testing.assert_close(logits[0], logits[1][3:7])


@pytest.fixture
def random_model() -> Decoder:
    model = random_decoder(heads=4, vocab_size=100, grid=(4, 4), std=0.2)
    return model.eval().requires_grad_(False)
