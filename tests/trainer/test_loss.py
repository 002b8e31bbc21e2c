import pytest
import torch
import torch.nn.functional as F

from trainer.loss import mean_by_modality, token_losses, training_loss
from trainer.packing import NO_TARGET


def test_loss_is_the_cross_entropy_of_the_tokens_that_count() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 10), torch.tensor([3, 1, NO_TARGET, 9, 0, NO_TARGET])
    loss, _ = training_loss(logits, targets, (targets != NO_TARGET).float(), z_loss=0.0)
    torch.testing.assert_close(loss, F.cross_entropy(logits, targets, ignore_index=NO_TARGET))


def test_z_loss_pulls_the_log_normaliser_to_zero() -> None:
    logits = torch.full((4, 10), 5.0, requires_grad=True)
    targets = torch.zeros(4, dtype=torch.int64)
    plain, _ = training_loss(logits, targets, torch.ones(4), z_loss=0.0)
    weighted, _ = training_loss(logits, targets, torch.ones(4), z_loss=0.1)
    expected = 0.1 * (5.0 + torch.log(torch.tensor(10.0))) ** 2
    torch.testing.assert_close(weighted - plain, expected)


def test_a_token_counts_by_its_weight() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 10), torch.tensor([3, 1, 9, NO_TARGET])
    losses, _ = token_losses(logits, targets)
    loss, _ = training_loss(logits, targets, torch.tensor([1.0, 0.0, 0.5, 0.0]), z_loss=0.0)
    torch.testing.assert_close(loss, (losses[0] + 0.5 * losses[2]) / 1.5)


def test_each_modality_has_the_mean_of_its_own_tokens() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(5, 10), torch.tensor([0, 4, 5, 8, NO_TARGET])
    losses, _ = token_losses(logits, targets)
    ids = {"special": range(4), "text": range(4, 8), "image": range(8, 10), "audio": range(10, 12)}
    means = mean_by_modality(losses, targets, ids)
    assert set(means) == {"special", "text", "image", "all"}
    assert means["text"] == pytest.approx(float(losses[1:3].mean()))
    assert means["all"] == pytest.approx(float(losses[:4].mean()))
