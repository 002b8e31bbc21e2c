"""The codebook that a training with `quantizer: vq` has, as its settings say.

Legend: N encodings, K codes, D dimensions.
"""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.tokenizer_cache.corpus import TINY_VQ
from tokenizer_cache.settings import VQSettings
from tokenizer_cache.vq.model import VQModel

SIDE = 4
DECAY = 0.99


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def started(**changes: Any) -> tuple[Any, Any]:
    """A quantizer in training whose codebook a batch has started, and the codebook."""
    settings = VQSettings.model_validate({**TINY_VQ.model_dump(), "ema_decay": DECAY, **changes})
    quantizer = VQModel(settings).train().quantizer
    quantizer(encodings(64))
    return quantizer, quantizer._codebook


def encodings(number: int) -> Tensor:
    """(number, D, 4, 4): of any length."""
    return torch.randn(number, TINY_VQ.codebook_dim, SIDE, SIDE) * 3


def unit_rows(values: Tensor) -> Tensor:
    """(N, D) of unit length, from (B, D, h, w)."""
    return F.normalize(values.permute(0, 2, 3, 1).flatten(0, 2), dim=1)


def test_codes_start_as_the_means_of_the_encodings_around_them() -> None:
    settings = VQSettings.model_validate({**TINY_VQ.model_dump(), "dead_code_share": 0.0})
    quantizer = VQModel(settings).train().quantizer
    assert (quantizer.codebook == 0).all()
    centres = F.normalize(torch.randn(TINY_VQ.codebook_size, TINY_VQ.codebook_dim), dim=1)
    values = centres.repeat_interleave(64, dim=0) + 0.01 * torch.randn(64 * len(centres), 8)
    values = values[torch.randperm(len(values))].view(-1, SIDE, SIDE, 8).permute(0, 3, 1, 2)
    quantizer(values)
    codes = quantizer.codebook  # (K, D)
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(len(codes)))
    # k-means may leave a cluster in two or merge two, but each code is a mean and no single place.
    nearest = (unit_rows(values) @ codes.T).argmax(dim=1)  # (N,)
    for code in nearest.unique():
        around = unit_rows(values)[nearest == code].mean(dim=0)
        torch.testing.assert_close(F.normalize(around, dim=0), codes[code], atol=0.02, rtol=0)


def test_a_batch_moves_counts_and_sums_by_one_minus_the_decay() -> None:
    """VQ-VAE, arXiv:1711.00937, appendix A.1, equations 6 to 8."""
    quantizer, book = started(dead_code_share=0.0)
    counts, sums = book.cluster_size[0].clone(), book.embed_avg[0].clone()  # (K,), (K, D)
    batch = encodings(8)
    codes = quantizer(batch)[1].flatten()  # (N,)
    members = F.one_hot(codes, TINY_VQ.codebook_size).float()  # (N, K)
    expected = DECAY * counts + (1 - DECAY) * members.sum(dim=0)
    torch.testing.assert_close(book.cluster_size[0], expected)
    expected_sums = DECAY * sums + (1 - DECAY) * members.T @ unit_rows(batch)
    torch.testing.assert_close(book.embed_avg[0], expected_sums)
    torch.testing.assert_close(quantizer.codebook, F.normalize(expected_sums, dim=1))


def test_a_code_without_any_count_stays_finite_by_laplace_smoothing() -> None:
    """The same appendix; where codes have unit length, smoothing changes nothing else."""
    quantizer, book = started(dead_code_share=0.0)
    book.cluster_size[0, 3] = 0
    book.embed_avg[0, 3] = 0
    book.embed[0, 3] = -book.embed[0].sum(dim=0)  # far from all others
    quantizer(encodings(1))
    assert quantizer.codebook.isfinite().all()


def test_a_revived_code_is_an_encoding_of_the_batch_with_new_count_and_sum() -> None:
    quantizer, book = started(dead_code_share=0.5)
    threshold = 0.5 * TINY_VQ.batch_size * (16 // 8) ** 2 / TINY_VQ.codebook_size
    assert book.threshold_ema_dead_code == threshold
    dead = 5
    book.cluster_size[0] = 10.0
    book.cluster_size[0, dead] = threshold / 2
    book.embed_avg[0, dead] = 1e6  # what a code that only counts anew would drag along
    book.embed[0, dead] = torch.zeros(TINY_VQ.codebook_dim)  # nothing is nearest to it
    before = quantizer.codebook.clone()
    batch = encodings(8)
    quantizer(batch)
    revived = quantizer.codebook[dead]
    assert (unit_rows(batch) - revived).abs().amax(dim=1).min() < 1e-6
    assert book.cluster_size[0, dead] == threshold
    torch.testing.assert_close(book.embed_avg[0, dead], revived * threshold)
    others = torch.arange(TINY_VQ.codebook_size) != dead
    moved = (quantizer.codebook - before)[others].norm(dim=1)
    assert (moved < 0.5).all()  # living codes only follow their averages


@pytest.mark.parametrize("gradient", ["rotation-trick", "straight-through"])
def test_the_encoder_gets_the_gradient_of_its_setting(gradient: str) -> None:
    quantizer, _ = started(gradient=gradient, commitment_weight=0.0)
    values = encodings(2).requires_grad_()
    quantized = quantizer(values)[0]
    wanted = torch.randn_like(quantized)
    quantized.backward(wanted)
    assert values.grad is not None
    # Both pass through the normalisation of the encodings; straight-through adds nothing to it.
    unchanged = torch.autograd.grad(F.normalize(values, dim=1), values, wanted)[0]
    is_unchanged = torch.allclose(values.grad, unchanged, atol=1e-5)
    assert is_unchanged == (gradient == "straight-through")
