from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.masks import document_mask
from trainer.model.decoder import Decoder
from trainer.packing import NO_TARGET, Packer, build_row, pack, unpack
from trainer.settings import ModelSettings

documents = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=16), max_size=40)


@given(documents, st.integers(1, 5))
def test_every_document_is_packed_once_and_whole(documents: list[list[int]], num_open: int) -> None:
    rows = list(pack(documents, seq_len=16, num_open=num_open, pad=0))
    packed = Counter(tuple(document) for row in rows for document in unpack(row))
    assert packed == Counter(map(tuple, documents))
    assert all(len(row.tokens) == 16 for row in rows)


@given(documents, st.integers(1, 5))
def test_a_packer_that_is_saved_and_loaded_gives_the_same_rows(
    documents: list[list[int]], num_open: int
) -> None:
    whole = [row.tokens.tolist() for row in pack(documents, seq_len=16, num_open=num_open, pad=0)]
    half = len(documents) // 2
    first = Packer(16, num_open, 0)
    rows = [row for document in documents[:half] for row in first.add(document)]
    second = Packer(16, num_open, 0, [list(row) for row in first.rows])
    rows += [row for document in documents[half:] for row in second.add(document)]
    rows += second.flush()
    assert [row.tokens.tolist() for row in rows] == whole


def test_targets_and_positions_stay_inside_each_document() -> None:
    row = build_row([[5, 6, 7], [8, 9]], seq_len=7, pad=0)
    assert row.tokens.tolist() == [5, 6, 7, 8, 9, 0, 0]
    assert row.targets.tolist() == [6, 7, NO_TARGET, 9, NO_TARGET, NO_TARGET, NO_TARGET]
    assert row.documents.tolist() == [1, 1, 1, 2, 2, 0, 0]
    assert row.positions.tolist() == [0, 1, 2, 0, 1, 0, 0]


def test_a_document_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="17 tokens is longer than 16"):
        list(Packer(16, 1, 0).add([1] * 17))


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
    """A model whose every weight is random: a fresh one has zeros that would hide a leak."""
    torch.manual_seed(0)
    model = Decoder(ModelSettings(layers=2, width=32, heads=4), vocab_size=100, num_codes=16)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval().requires_grad_(False)
