import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.data.packing import NO_TARGET
from trainer.train.loss import next_token_losses, training_loss

IDENTITY = torch.eye(10)
"""A head that gives its input as the logits."""


def loss_of(logits: Tensor, targets: Tensor, weights: Tensor, z_loss: float = 0.0) -> Tensor:
    total = float(weights.sum())
    loss, _ = training_loss(logits, IDENTITY, targets, weights, total_weight=total, z_loss=z_loss)
    return loss


def test_loss_is_the_cross_entropy_of_the_tokens_that_count() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 10), torch.tensor([3, 1, NO_TARGET, 9, 0, NO_TARGET])
    loss = loss_of(logits, targets, (targets != NO_TARGET).float())
    torch.testing.assert_close(loss, F.cross_entropy(logits, targets, ignore_index=NO_TARGET))


def test_z_loss_pulls_the_log_normaliser_to_zero() -> None:
    logits = torch.full((4, 10), 5.0)
    targets = torch.zeros(4, dtype=torch.int64)
    plain = loss_of(logits, targets, torch.ones(4))
    weighted = loss_of(logits, targets, torch.ones(4), z_loss=0.1)
    expected = 0.1 * (5.0 + torch.log(torch.tensor(10.0))) ** 2
    torch.testing.assert_close(weighted - plain, expected)


def test_a_token_counts_by_its_weight() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 10), torch.tensor([3, 1, 9, NO_TARGET])
    losses, _ = next_token_losses(logits, IDENTITY, targets)
    loss = loss_of(logits, targets, torch.tensor([1.0, 0.0, 0.5, 0.0]))
    torch.testing.assert_close(loss, (losses[0] + 0.5 * losses[2]) / 1.5)


@pytest.mark.parametrize("num_tokens", [1, 2, 6])
def test_chunks_have_the_losses_and_gradients_of_the_whole(num_tokens: int) -> None:
    def losses(max_logits: int) -> tuple[Tensor, Tensor, Tensor]:
        torch.manual_seed(0)
        hidden = torch.randn(5, 4, requires_grad=True)
        head = torch.randn(10, 4, requires_grad=True)
        targets = torch.tensor([0, 4, NO_TARGET, 8, 3])
        loss, _ = training_loss(
            hidden, head, targets, torch.ones(5), total_weight=5, z_loss=0.1, max_logits=max_logits
        )
        loss.backward()
        assert hidden.grad is not None
        assert head.grad is not None
        return loss.detach(), hidden.grad, head.grad

    for part, whole in zip(losses(10 * num_tokens), losses(10**6), strict=True):
        torch.testing.assert_close(part, whole)
