import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from tests.trainer.conftest import random_decoder
from trainer.model.attention import attend, block_mask, mask_of
from trainer.model.decoder import Decoder
from trainer.model.masks import document_mask

DOCUMENTS = torch.tensor(
    [[1] * 100 + [2] * 60 + [3] * 200 + [0] * 40, [1] * 256 + [2] * 130 + [3] * 14]
)
"""(2, 400): documents that end inside, at and behind the ends of blocks of 128 tokens."""


def model() -> Decoder:
    """Random weights everywhere: as it starts, a block's output is 0."""
    return random_decoder(heads=2, vocab_size=20, grid=(2, 2), std=0.3)


def logits(decoder: Decoder, tokens: Tensor, documents: Tensor) -> Tensor:
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    out: Tensor = decoder(
        tokens, positions=positions, places=torch.zeros_like(tokens), mask=mask_of(documents)
    )
    return out


@pytest.mark.parametrize("changed", [0, 59, 60, 99])
def test_a_token_changes_only_what_comes_after_it_in_its_document(changed: int) -> None:
    decoder = model()
    documents = torch.tensor([[1] * 60 + [2] * 40])
    tokens = torch.randint(1, 20, (1, 100), generator=torch.Generator().manual_seed(1))
    other = tokens.clone()
    other[0, changed] = 0
    differs = (logits(decoder, tokens, documents) != logits(decoder, other, documents)).any(dim=-1)
    end = 60 if changed < 60 else 100
    assert differs[0].nonzero().flatten().tolist() == list(range(changed, end))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_with_its_mask_of_blocks_is_the_same_attention() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, DOCUMENTS.shape[1], 16) for _ in range(3))
    expected = attend(q, k, v, document_mask(DOCUMENTS))
    found = attend(q, k, v, block_mask(DOCUMENTS))
    torch.testing.assert_close(found, expected)


def test_blocks_of_other_documents_are_left_out() -> None:
    blocks = block_mask(DOCUMENTS)
    assert blocks.kv_num_blocks[:, 0].tolist() == [[1, 2, 2, 2], [1, 2, 1, 2]]
    dense = blocks.to_dense()[:, 0].bool()
    expected = torch.zeros(2, 512, 512, dtype=torch.bool)
    expected[:, :400, :400] = document_mask(DOCUMENTS)[:, 0]
    needed = expected.unfold(1, 128, 128).unfold(2, 128, 128).any(dim=-1).any(dim=-1)
    assert torch.equal(dense, needed)


def gradients(decoder: Decoder) -> list[Tensor]:
    tokens = torch.randint(1, 20, (2, 64), generator=torch.Generator().manual_seed(1))
    decoder.zero_grad()
    logits(decoder, tokens, torch.ones_like(tokens)).square().mean().backward()
    return [parameter.grad for parameter in decoder.parameters() if parameter.grad is not None]


def test_activations_that_are_computed_again_give_the_same_gradients() -> None:
    kept, recomputed = model(), model()
    recomputed.recomputes_activations = True
    for one, other in zip(gradients(kept), gradients(recomputed), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_compiled_blocks_give_the_same_gradients() -> None:
    plain, compiled = model(), model()
    compiled.compile_blocks()
    for one, other in zip(gradients(plain), gradients(compiled), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_other_documents_need_no_other_compilation() -> None:
    decoder = model()
    count = CompileCounter()  # in place of a compiler
    for block in decoder.blocks:
        block.compile(backend=count, fullgraph=True)
    tokens = torch.ones(2, 400, dtype=torch.int64)
    with torch.no_grad():
        for documents in (DOCUMENTS, DOCUMENTS.flip(0), torch.ones_like(tokens)):
            decoder(tokens, positions=tokens, places=tokens, mask=block_mask(documents))
    assert count.frame_count == 1, "one for all blocks and batches"
