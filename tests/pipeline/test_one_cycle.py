import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from pipeline.one_cycle import warmup_share


@pytest.mark.parametrize("share", [0.05, 0.1])
@pytest.mark.parametrize("num_steps", [1, 2, 10, 20, 100])
def test_a_schedule_of_any_length_comes_to_its_end(share: float, num_steps: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = OneCycleLR(
        optimizer, 1.0, total_steps=num_steps, pct_start=warmup_share(share, num_steps)
    )
    for _ in range(num_steps - 1):
        optimizer.step()
        schedule.step()
    assert schedule.get_last_lr()[0] < 0.01
